"""`vicuna data stats`: lengths and languages of records."""

import json
from pathlib import Path

import pytest

from tests.data.builders import messages_row
from tests.data.look.builders import clean, fails
from vicuna.data.__main__ import main
from vicuna.io.jsonl import read_jsonl, write_jsonl


def test_stats_are_those_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        messages_row("a#1", "12345", "123", original_id="a", language="en", num_tokens=10),
        messages_row("a#2", "12345", "123", "1", "2", original_id="a", language="en", num_tokens=30),
        messages_row("b", "1", "2", language="fr"),
    ]
    write_jsonl(tmp_path / "r.jsonl", rows)
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write("{}\n")
    assert main(["stats", str(tmp_path / "r.jsonl"), "--json"]) == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert (figures["records"], figures["conversations"], figures["unreadable"]) == (3, 2, 1)
    assert figures["messages_by_role"] == {"user": 4, "assistant": 4}
    assert figures["languages"] == {"en": 2, "fr": 1}
    assert figures["lengths"]["messages"] == {
        "records": 3, "total": 8, "mean": 2.7, "min": 2, "p10": 2, "median": 2, "p90": 4, "p99": 4, "max": 4,
    }  # fmt: skip
    assert figures["lengths"]["characters"]["total"] == 20
    assert (figures["lengths"]["tokens"]["records"], figures["lengths"]["tokens"]["total"]) == (2, 40)
    assert "1 could not be read; the first" in captured.err
    assert main(["stats", str(tmp_path / "r.jsonl")]) == 0
    table = capsys.readouterr().out
    assert "3 records of 2 conversations; messages: 4 user, 4 assistant" in table
    assert "tokens (of 2 records)" in table
    assert "66.7%" in table


def test_stats_count_tokens_as_the_trainer_does(
    tmp_path: Path, bpe_tokenizer_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml"]
    folder = clean(
        tmp_path, "counted", [messages_row("a", "one", "two"), messages_row("b", "three", "four five")], *flags
    )
    numbers = [item["num_tokens"] for item in read_jsonl(folder / "records.jsonl")]
    capsys.readouterr()
    for argv in ([str(folder)], [str(tmp_path / "counted.jsonl"), *flags]):
        assert main(["stats", *argv, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["lengths"]["tokens"]["total"] == sum(numbers)
    assert "--template is missing" in fails(capsys, "stats", folder, *flags[:2])
