"""`vicuna import gguf`: a file back to a folder."""

from pathlib import Path

import pytest

from tests.weights.gguf.builders import byte_level, make_model
from vicuna.cli import main
from vicuna.weights.files.checkpoint import CheckpointReader


def test_import_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "gpt-2"), "BF16")
    arguments = ["--model", str(folder), "--output", str(tmp_path / "a.gguf"), "--type", "bf16"]
    assert main(["export", "gguf", *arguments]) == 0
    assert "21 tensors" in capsys.readouterr().out
    back = str(tmp_path / "back")
    assert main(["import", "gguf", str(tmp_path / "a.gguf"), "--output-dir", back, "--dtype", "float16"]) == 0
    assert "as float16" in capsys.readouterr().out
    with CheckpointReader(tmp_path / "back") as reader:
        assert {tensor.dtype for tensor in reader.tensors.values()} == {"F16"}
