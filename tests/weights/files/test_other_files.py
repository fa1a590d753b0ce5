"""The files beside the weights: which are copied, and what is said about the rest."""

import hashlib
from pathlib import Path

import pytest

from tests.weights.builders import numbers, write_model
from vicuna.weights.files import other_files as other_files_module
from vicuna.weights.files.other_files import copy_files, other_files


def test_weights_and_code_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "m", numbers(0), shard_bytes=600)
    (model / "modeling.py").write_text("code")
    (model / "vicuna_manifest.json").write_text("{}")
    (model / "folder").mkdir()
    assert list(other_files(model)) == ["config.json", "tokenizer.json"]
    said = capsys.readouterr().err
    assert "not copied: folder, modeling.py" in said and "has no tokenizer" not in said


def test_large_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "m", numbers(0))
    monkeypatch.setattr(other_files_module, "MAX_COPIED_BYTES", 30)
    assert list(other_files(model)) == ["tokenizer.json"]


def test_a_missing_tokenizer_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "m", numbers(0))
    (model / "tokenizer.json").unlink()
    assert list(other_files(model)) == ["config.json"]
    assert f"{model} has no tokenizer (none of tokenizer.json, tokenizer.model" in capsys.readouterr().err


def test_copies_have_the_hashes_that_are_returned(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"\x00\r\n")
    hashes = copy_files({"renamed": tmp_path / "one"}, tmp_path / "out")
    assert hashes == {"renamed": hashlib.sha256(b"\x00\r\n").hexdigest()}
    assert (tmp_path / "out" / "renamed").read_bytes() == b"\x00\r\n"
