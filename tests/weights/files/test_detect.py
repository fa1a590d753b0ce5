"""Models told from deltas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.builders import numbers, write_model
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import require_safetensors
from vicuna.weights.files.detect import is_delta, kind_of, refuse_delta

torch = pytest.importorskip("torch")


WIDE = torch.arange(70, dtype=torch.float32).reshape(7, 10)


def save(folder: Path, state: Any, name: str = "pytorch_model.bin", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name, **options)
    return folder


def test_detected_and_pointed_to_the_converter(tmp_path: Path) -> None:
    norm, rest = {"model.norm.weight": torch.ones(8)}, {"lm_head.weight": WIDE}
    model = save(tmp_path / "model", norm | rest)
    delta = save(tmp_path / "delta", {"model.norm.weight": torch.ones(8) * 0.001} | rest)
    assert (kind_of(model), kind_of(delta)) == ("model", "additive delta")
    with pytest.raises(VicunaError, match="vicuna weights cast"):
        require_safetensors(model)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_an_additive_delta_is_told_from_a_model(tmp_path: Path, dtype: str) -> None:
    model = write_model(tmp_path / "m", numbers(0), dtype)
    difference = {name: values * np.float32(0.001) for name, values in numbers(1).items()}
    delta = write_model(tmp_path / "d", difference, dtype)
    assert kind_of(model) == "model"
    assert kind_of(delta) == "additive delta"
    assert is_delta(delta)
    assert not is_delta(tmp_path)
    refuse_delta(model)
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        refuse_delta(delta)
