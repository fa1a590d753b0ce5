"""Making a delta: its size, and which inputs are refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import numbers, write_model
from vicuna.errors import UsageError, VicunaError
from vicuna.weights.delta.make import make_delta


def test_a_fine_tune_makes_a_small_delta(tmp_path: Path) -> None:
    shapes = {"model.w.weight": (512, 512), "model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes))
    target = write_model(tmp_path / "target", {n: v * np.float32(1.0005) for n, v in numbers(0, shapes).items()})
    summary = make_delta(base, target, tmp_path / "delta")
    assert summary.delta_bytes < 0.3 * summary.target_bytes


def test_a_delta_is_no_model(tmp_path: Path, base: Path, delta: Path) -> None:
    with pytest.raises(VicunaError, match="is a delta, not a model; make the model first"):
        make_delta(base, delta, tmp_path / "other")


def test_same_folder_twice(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="are the same model"):
        make_delta(base, base, tmp_path / "delta")


def test_a_config_that_cannot_be_read_is_told_before_the_work(
    tmp_path: Path, base: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "config.json").write_text("{")
    with pytest.raises(VicunaError, match=r"base/config\.json:1:2: not JSON"):
        make_delta(base, target, tmp_path / "delta")
    assert "making the delta" not in capsys.readouterr().err


def test_a_checkpoint_without_tensors(tmp_path: Path, base: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(VicunaError, match="empty holds no tensors"):
        make_delta(base, empty, tmp_path / "delta")
