"""`vicuna export` and `vicuna import`: usage, and exit code 3 for another model's file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.weights.gguf.builders import byte_level, make_model
from vicuna.cli import main
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


def test_another_models_file_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_level(tmp_path / "tokenizer", "gpt-2")
    one = make_model(tmp_path / "one", tokenizer, scale=0.4)
    other = make_model(tmp_path / "other", tokenizer, scale=0.4, num_hidden_layers=3)
    export_gguf(one, tmp_path / "one.gguf", FILE_TYPES["q8_0"])
    assert main(["export", "check", "--model", str(other), "--gguf", str(tmp_path / "one.gguf"), "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mismatches"] == []
    assert "does not answer as" in captured.err


@pytest.mark.parametrize("module", ["vicuna.export", "vicuna.import_gguf"])
def test_the_commands_say_what_they_do(module: str) -> None:
    run = [sys.executable, "-m", module]
    assert subprocess.run(run, capture_output=True, text=True).returncode == 2
    told = subprocess.run([*run, "gguf", "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "type" in told.stdout
    wrong = subprocess.run([*run, "ggfu"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "did you mean 'gguf'?" in wrong.stderr
