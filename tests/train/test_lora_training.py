"""An adapter is trained alike after a kill, with recomputed layers, and on two ranks."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.builders import MakeOptions, adapter_of, losses
from tests.train.launch import on_ranks, train_in_child
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.weights.tools.adapter import check_adapter


def assert_equal(one: TrainOptions, other: TrainOptions, **tolerance: float) -> None:
    expected = adapter_of(other)
    found = adapter_of(one)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **(tolerance or {"rtol": 0.0, "atol": 0.0}))


def test_a_killed_run_ends_with_the_same_adapter(lora_options: MakeOptions, tmp_path: Path) -> None:
    changes = {"lora_dropout": 0.2, "save_steps": 1}
    whole = lora_options(output_dir=tmp_path / "whole", **changes)
    status, events = train_in_child(whole, None)
    assert status == 0
    for kill_at in (events // 3, 2 * events // 3):
        options = lora_options(output_dir=tmp_path / f"killed-{kill_at}", **changes)
        assert os.WIFSIGNALED(train_in_child(options, kill_at)[0])
        train(options)
        assert_equal(options, whole)


def test_dropout_is_drawn_again_alike_where_a_layer_is_computed_again(
    lora_options: MakeOptions, tmp_path: Path
) -> None:
    runs = [
        lora_options(output_dir=tmp_path / kind, lora_dropout=0.3, activation_checkpointing=kind, max_steps=3)
        for kind in ("none", "selective", "full")
    ]
    for options in runs:
        train(options)
        assert_equal(options, runs[0], rtol=1e-5, atol=1e-6)
    still = lora_options(output_dir=tmp_path / "still", max_steps=3)
    train(still)
    assert losses(still) != losses(runs[0])


@pytest.mark.parametrize("bf16", [False, True])
def test_two_ranks_learn_the_adapter_that_one_learns(lora_options: MakeOptions, tmp_path: Path, bf16: bool) -> None:
    one, two = (lora_options(output_dir=tmp_path / name, max_steps=4, bf16=bf16) for name in ("one", "two"))
    train(one)
    assert on_ranks(2, lambda _: train(two)) == [0, 0]
    assert losses(two) == pytest.approx(losses(one), abs=0.05 if bf16 else 1e-4)
    if not bf16:
        assert_equal(two, one, rtol=1e-2, atol=1e-4)
    check_adapter(two.output_dir / "adapter")
    # What two ranks have begun, one goes on with.
    shutil.rmtree(two.output_dir / "adapter")
    shutil.rmtree(two.output_dir / "checkpoints" / "step-00000004", ignore_errors=True)
    train(two)
    assert losses(two) == pytest.approx(losses(one), abs=0.05 if bf16 else 1e-4)


@pytest.mark.gpu
def test_qlora_on_a_gpu(lora_options: MakeOptions) -> None:
    options = lora_options(lora=False, qlora=True, max_steps=20, device="cuda")
    train(options)
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(options.output_dir / "adapter")
