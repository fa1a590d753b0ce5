"""Records read for the commands beside cleaning, and outputs that are there already."""

import json
from pathlib import Path

import pytest

from tests.data.builders import messages_row
from tests.data.look.builders import fails


def test_nothing_is_written_over_a_file(tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.jsonl").write_text("mine")
    for verb in (["sample", many, "--count", "1"], ["merge", many]):
        assert "is there already" in fails(capsys, *verb, "--output", tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text() == "mine"


def test_a_file_with_a_bad_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(messages_row("a", "b", "c")) + '\n{"id": "x"}\n')
    line = fails(capsys, "merge", tmp_path / "bad.jsonl", "--output", tmp_path / "o.jsonl")
    assert "bad.jsonl, line 2: no conversation in a record" in line
    assert not (tmp_path / "o.jsonl").exists()
