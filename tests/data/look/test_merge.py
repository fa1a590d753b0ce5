"""`vicuna data merge`: several results as one file."""

from pathlib import Path

import pytest

from tests.data.builders import messages_row
from tests.data.look.builders import clean, fails, ids
from vicuna.data.__main__ import main
from vicuna.io.jsonl import read_jsonl


def test_merging_writes_each_record_once_under_an_id_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = clean(tmp_path, "first", [messages_row("a", "one", "1"), messages_row("b", "two", "2")])
    second = clean(
        tmp_path,
        "second",
        [messages_row("a", "one", "1"), messages_row("b", "other", "3"), messages_row("c", "three", "3", mine=1)],
    )
    capsys.readouterr()
    assert main(["merge", str(first), str(second), "--output", str(tmp_path / "o.jsonl")]) == 0
    rows = list(read_jsonl(tmp_path / "o.jsonl"))
    assert [item["id"] for item in rows] == ["a", "b", "b~2", "c"]
    assert rows[2]["original_id"] == "b"
    assert rows[3]["mine"] == 1
    assert "4 records" in (said := capsys.readouterr().out)
    assert "1 were there already, 1 got another id" in said


def test_merging_lets_nothing_in_that_another_cleaning_holds_out(tmp_path: Path, many: Path) -> None:
    rows = [messages_row(f"r{number}", f"question {number}", "answer") for number in range(40)]
    held = clean(tmp_path, "held", rows, "--held-out-ratio", "0.3")
    kept_out = set(ids(held / "held_out.jsonl"))
    assert kept_out
    assert main(["merge", str(held), str(many), "--output", str(tmp_path / "o.jsonl")]) == 0
    assert set(ids(tmp_path / "o.jsonl")) == set(ids(many / "records.jsonl")) - kept_out


def test_a_cleaning_that_held_nothing_out_can_be_merged(tmp_path: Path) -> None:
    folder = clean(tmp_path, "one", [messages_row("a", "one", "1")], "--held-out-ratio", "0.000001")
    assert (folder / "held_out.jsonl").read_bytes() == b""
    assert main(["merge", str(folder), "--output", str(tmp_path / "o.jsonl")]) == 0
    assert ids(tmp_path / "o.jsonl") == ["a"]


def test_merging_nothing_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no file to read" in fails(capsys, "merge", empty, "--output", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()
