"""Results of small cleanings, and the commands that look at them."""

from pathlib import Path

import pytest

from vicuna.data.__main__ import main
from vicuna.io.jsonl import JsonObject, read_jsonl, write_jsonl


def clean(tmp_path: Path, name: str, rows: list[JsonObject], *flags: str) -> Path:
    write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert main([str(tmp_path / f"{name}.jsonl"), "--output-dir", str(tmp_path / name), "--workers", "1", *flags]) == 0
    return tmp_path / name


def ids(path: Path) -> list[str]:
    return [item["id"] for item in read_jsonl(path)]


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that the command says."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return line
