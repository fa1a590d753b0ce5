"""`vicuna data why`: what became of one record."""

from pathlib import Path

import pytest

from tests.data.builders import run_command
from vicuna.data.__main__ import EXIT_SET_ASIDE


def test_why_tells_the_story(
    tmp_path: Path, collection: Path, counting: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_command(collection, "--output-dir", out, *counting) == EXIT_SET_ASIDE
    capsys.readouterr()
    for identifier, words in {
        "again": "merged into another by dedup, duplicate: good-0",
        "error": "dropped by errors, error_message: Too many requests",
        "cut": "turn 3): repaired by empty, empty_answer",
        "long": "long#2 (in.json:46): in records.jsonl",
        "good-1~2": "in records.jsonl with 2 messages",
    }.items():
        assert run_command("why", identifier, "--in", out) == 0
        assert words in capsys.readouterr().out
    assert run_command("why", "nobody", "--in", out) == 1
    assert "no record 'nobody'" in capsys.readouterr().err
