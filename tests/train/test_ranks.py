"""Two ranks train as one process does: the same losses, the same weights, and either goes on with the other's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import make_records, write_records
from tests.train.launch import on_ranks
from tests.train.test_loop import losses, weights
from vicuna.train.config import TrainOptions
from vicuna.train.loop import train

MakeOptions = Callable[..., TrainOptions]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "records.jsonl", make_records(60))


def train_on_ranks(num_ranks: int, options: TrainOptions) -> None:
    assert on_ranks(num_ranks, lambda _: train(options)) == [0] * num_ranks


def assert_same(one: TrainOptions, other: TrainOptions) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=1e-4)
    expected = weights(other)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_two_ranks_train_as_one_process_does(make_options: MakeOptions, tmp_path: Path, data: Path) -> None:
    shape: dict[str, Any] = {"data": (data,), "max_steps": 50, "rows_per_step": 5, "bf16": False, "save_steps": 0}
    one = make_options(output_dir=tmp_path / "one", **shape)
    two = make_options(output_dir=tmp_path / "two", per_device_train_batch_size=2, **shape)
    train(one)
    train_on_ranks(2, two)
    assert_same(two, one)
