"""`vicuna weights verify`: a model or delta is proved, and what differs is named."""

from pathlib import Path

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.__main__ import main


def test_model_delta_and_another_copy(folders: dict[str, Path], tmp_path: Path) -> None:
    assert main(["verify", str(folders["model"])]) == 0
    assert main(["verify", str(folders["delta"])]) == 0
    assert main(["verify", str(folders["target"]), "--delta", str(folders["delta"])]) == 0
    resharded = write_model(tmp_path / "resharded", tuned(numbers(0)), shard_bytes=600)
    assert main(["verify", str(resharded), "--manifest", str(folders["delta"] / "vicuna_delta.json")]) == 0


def test_the_base_is_not_the_target(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folders["base"]), "--delta", str(folders["delta"])]) == 3
    assert "is the base, not the target (tensor 'lm_head.weight')" in capsys.readouterr().err


def test_a_damaged_delta_proves_nothing(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = folders["delta"] / "vicuna_delta.json"
    path.write_text(path.read_text().replace("a", "b", 1))
    assert main(["verify", str(folders["target"]), "--delta", str(folders["delta"])]) == 3
    assert "does not have the hash in SHA256SUMS" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_byte_is_named(folders: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = folders["model"] / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert main(["verify", str(folders["model"])]) == 3
    text = capsys.readouterr().err
    assert name in text or "tensor 'model.norm.weight'" in text


def test_a_damaged_delta(folders: dict[str, Path]) -> None:
    path = folders["delta"] / "weights.vdelta"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert main(["verify", str(folders["delta"])]) == 3


def test_a_model_without_a_manifest_says_what_to_give(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folders["target"])]) == 1
    assert "name the delta it was made with (--delta)" in capsys.readouterr().err
