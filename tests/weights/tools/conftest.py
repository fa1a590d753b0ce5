"""A base, a target, the delta between them and the model made from it."""

from pathlib import Path

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import make_delta


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    base = write_model(tmp_path / "base", numbers(0))
    target = write_model(tmp_path / "target", tuned(numbers(0)))
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "model")
    return {name: tmp_path / name for name in ("base", "target", "delta", "model")}
