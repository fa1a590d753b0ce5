"""A base model, a fine-tune of it and the delta between them."""

from pathlib import Path

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.delta.make import make_delta


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", numbers(0))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_model(tmp_path / "target", tuned(numbers(0)))


@pytest.fixture
def delta(tmp_path: Path, base: Path, target: Path) -> Path:
    make_delta(base, target, tmp_path / "delta")
    return tmp_path / "delta"
