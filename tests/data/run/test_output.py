"""The folder of a result: what is refused, and what was changed in it."""

from pathlib import Path

import pytest

from tests.data.builders import refuses, run_command
from vicuna.data.__main__ import EXIT_SET_ASIDE


def test_a_folder_with_other_things_in_it_is_refused(
    tmp_path: Path, collection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    refuses(capsys, "notes.txt, which no cleaning wrote", 1, collection, "--output-dir", out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    assert run_command(collection, "--output-dir", out) == EXIT_SET_ASIDE
    (out / "notes.txt").write_text("mine", "utf-8")
    refuses(capsys, "notes.txt, which no cleaning wrote", 1, collection, "--output-dir", out)
    (out / "notes.txt").unlink()
    with (out / "records.jsonl").open("a") as file:
        file.write("{}\n")
    refuses(capsys, "records.jsonl was changed", 1, collection, "--output-dir", out)
    refuses(capsys, "is a file", 1, collection, "--output-dir", collection)
    refuses(capsys, "holds the input in.json", 1, collection, "--output-dir", tmp_path)


def test_a_result_that_somebody_changed_is_named(
    tmp_path: Path, collection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_command(collection, "--output-dir", out) == EXIT_SET_ASIDE
    (out / "dropped.jsonl").write_text('{"other": 1}\n')
    assert run_command("why", "good-1", "--in", out) == 1
    assert f"{out / 'dropped.jsonl'} was changed after its cleaning" in capsys.readouterr().err
    (out / "manifest.json").write_text('{"program": "vicuna.data", "outputs": {"records.jsonl": 3}}')
    assert run_command("why", "good-1", "--in", out) == 1
    assert run_command(collection, "--output-dir", out) == 1
    assert capsys.readouterr().err.count("manifest.json was not written by vicuna.data") == 2
