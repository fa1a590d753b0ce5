"""`vicuna data show`: records printed for reading."""

from pathlib import Path

import pytest

from tests.data.builders import messages_row
from tests.data.look.builders import clean, fails
from vicuna.data.__main__ import main
from vicuna.io.jsonl import write_jsonl


@pytest.fixture
def told(tmp_path: Path) -> Path:
    rows = [
        messages_row("plain", "hello", "hi there", language="en"),
        messages_row("repaired", "first", "good", "second", "  "),
        messages_row("gone", "", "nothing"),
        messages_row("long", *("x", "y") * 4, language="fr"),
    ]
    return clean(tmp_path, "told", rows, "--skip", "language")  # the languages above stay


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["show", *argv]) == 0
    return capsys.readouterr().out


def test_records_are_shown_with_roles_and_repairs(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "plain", "--in", str(told))
    assert text == "=== plain (told.jsonl:1, en, 2 messages)\nUSER\nhello\nASSISTANT\nhi there\n\n"
    text = shown(capsys, "--rule", "empty_answer", "--in", str(told))
    assert text.splitlines()[:2] == [
        "=== repaired (told.jsonl:2, 2 messages)",
        "--- repaired (told.jsonl:2, turn 3): repaired by empty, empty_answer: ''",
    ]
    assert "plain" not in text
    for argv in (["gone"], ["--rule", "empty_question"]):
        assert shown(capsys, *argv, "--in", str(told)) == (
            "--- gone (told.jsonl:3, turn 0): dropped by empty, empty_question: ''\n\n"
        )


def test_records_are_chosen_by_language_length_and_number(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, expected in (
        (["--language", "fr"], ["long"]),
        (["--min-messages", "3"], ["long"]),
        (["--limit", "2"], ["plain", "repaired"]),
        ([], ["plain", "repaired", "long"]),
    ):
        text = shown(capsys, *argv, "--in", str(told))
        assert [line.split()[1] for line in text.splitlines() if line.startswith("===")] == expected


def test_what_cannot_be_shown_is_named(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no such record" in fails(capsys, "show", "nobody", "--in", told)
    assert "--rule refusl found nothing there" in fails(capsys, "show", "--rule", "refusl", "--in", told)
    path = told.with_suffix(".jsonl")
    assert "is not the folder of a cleaning" in fails(capsys, "show", "--rule", "refusal", "--in", path)


def test_a_record_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "r.jsonl", [messages_row("a\x1b]0;x\x07", "\x1b[2J red \u202e right", "tab\there\nline")])
    text = shown(capsys, "--in", str(tmp_path / "r.jsonl"))
    assert not set("\x1b\x07\u202e") & set(text)
    assert "\\x1b[2J red" in text
    assert "tab\there\nline" in text
