"""Mistakes of a user: one line that names the thing and the way out, the right exit code, nothing left behind."""

import os
from pathlib import Path

import pytest

from vicuna.eval.__main__ import main

JUDGE = ["judge", "--mode", "pair", "--judge", "j", "--output", "OUT"]
ANSWER = ["answer", "--model", "m", "--output", "OUT"]
NOWHERE = ["--base-url", "http://127.0.0.1:9/v1"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jugde"], 2, "did you mean 'judge'"),
        (ANSWER, 2, "set OPENAI_API_KEY"),
        ([*ANSWER, *NOWHERE, "--num-questions", "8"], 1, "cannot reach http://127.0.0.1:9/v1"),
        ([*ANSWER, *NOWHERE, "--categories", "codin"], 2, "unknown category 'codin'; known: "),
        ([*ANSWER, *NOWHERE, "--num-questions", "0"], 2, "--num-questions 0: choose between 1 and 80"),
        ([*ANSWER, *NOWHERE, "--temperature", "-1"], 2, "--temperature -1.0: must be 0 or more"),
        ([*ANSWER, "--base-url", "ftp://x/v1"], 2, "--base-url ftp://x/v1"),
        ([*ANSWER, "--base-url", "http://127.0.0.1:99999/v1"], 2, "--base-url http://127.0.0.1:99999/v1: give"),
        ([*ANSWER, "--base-url", "http://[::1/v1"], 2, "--base-url http://[::1/v1: give"),
        ([*ANSWER[:-1], "PIPE", *NOWHERE], 1, "PIPE is not a plain file"),
        ([*ANSWER[:-1], ".", *NOWHERE], 1, ". is a folder"),
        ([*ANSWER, *NOWHERE, "--questions", "missing.jsonl"], 1, "missing.jsonl: no such file"),
        ([*JUDGE, *NOWHERE, "--answers", "missing.jsonl"], 1, "missing.jsonl: no such file"),
        ([*JUDGE, *NOWHERE, "--answers", "ANSWERS"], 1, "needs answers of two models"),
        ([*JUDGE[:-2], "--output", "ANSWERS", "--answers", "TWO", *NOWHERE], 1, "is of another kind"),
        ([*JUDGE, *NOWHERE, "--answers", "TWO"], 1, "cannot reach http://127.0.0.1:9/v1"),
        ([*JUDGE, "--answers", "TWO"], 2, "set OPENAI_API_KEY"),
        ([*JUDGE, *NOWHERE, "--answers", "TWO", "--max-usd", "1"], 2, "needs --price-per-1m"),
        (["judge", "--mode", "triple"], 2, "invalid choice: 'triple'"),
        (["report", "--judgments", "missing.jsonl", "--output", "OUT"], 1, "missing.jsonl: no such file"),
        (["report", "--output", "OUT"], 2, "--judgments is required"),
        (["rule-judge", "--port", "70000"], 2, "--port 70000"),
    ],
)
def test_one_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    one = '{"key": "k", "question_id": 1, "model_id": "m1", "text": "x"}\n'
    Path("ANSWERS").write_text(one)
    Path("TWO").write_text(one + one.replace("m1", "m2"))
    os.mkfifo("PIPE")
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1] and lines[-1].startswith("error: ")
    assert sum(line.startswith("error") for line in lines) == 1
    assert not Path("OUT").exists()
    assert Path("ANSWERS").read_text() == one
    assert Path("PIPE").is_fifo()


def test_an_empty_file_of_the_users_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("OUT").touch()
    assert main([*ANSWER, *NOWHERE, "--num-questions", "1"]) == 1
    assert Path("OUT").exists()


def test_a_key_that_no_header_takes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    assert main([*ANSWER, *NOWHERE]) == 2
    assert capsys.readouterr().err == "error: OPENAI_API_KEY holds characters that no HTTP header takes; set it again\n"


@pytest.mark.parametrize("verb", [[], ["answer"], ["judge"], ["report"], ["rule-judge"]])
def test_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "--help"]) == 0
    assert "usage:" in capsys.readouterr().out
