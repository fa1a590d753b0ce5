"""`vicuna weights`: verbs, and folders that do not exist."""

import re
from pathlib import Path

import pytest

from vicuna.cli import main as cli_main
from vicuna.weights.__main__ import main


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verfy"]) == 2
    assert "did you mean 'verify'?" in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path: Path, base: Path, target: Path, delta: Path) -> dict[str, str]:
    """Words for the commands below: what there is, and what there is not."""
    return {"BASE": str(base), "TARGET": str(target), "DELTA": str(delta), "NONE": "no/such/folder/here"} | {
        "OUT": str(tmp_path / "out")
    }


@pytest.mark.parametrize(
    "command",
    [
        "weights verify NONE",
        "weights verify NONE --quick",
        "weights verify NONE --delta DELTA",
        "weights verify TARGET --delta NONE",
        "weights verify TARGET --manifest NONE",
        "weights inspect NONE",
        "weights cast NONE --target OUT",
        "weights merge-lora --base NONE --adapter BASE --target OUT",
        "weights merge-lora --base BASE --adapter NONE --target OUT",
        "make-delta --base NONE --target TARGET --delta OUT",
        "make-delta --base BASE --target NONE --delta OUT",
        "apply-delta --base NONE --delta DELTA --target OUT",
        "apply-delta --base BASE --delta NONE --target OUT",
        "export gguf --model NONE --output OUT",
        "export check --model NONE --gguf OUT",
    ],
)
def test_a_missing_folder_is_named_in_one_line(
    folders: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main([folders.get(word, word) for word in command.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: no/such/folder/here: no such (file or )?folder; give ", line)
    assert not Path(folders["OUT"]).exists()
