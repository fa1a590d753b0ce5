"""Two ranks train as one process does: the same losses, the same weights, and either goes on with the other's."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.builders import (
    MakeOptions,
    assert_same_training,
    log_entries,
    make_records,
    save_qwen,
    steps_logged,
    weights,
    write_records,
)
from tests.train.launch import on_ranks, train_on_ranks
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "records.jsonl", make_records(60))


def test_two_ranks_train_as_one_process_does(make_options: MakeOptions, tmp_path: Path, data: Path) -> None:
    # 36 rows in steps of at most 5: the last micro-batch of a step has rows for one of the two ranks only.
    shape: dict[str, Any] = {"data": (data,), "max_steps": 50, "rows_per_step": 5, "save_steps": 0}
    one = make_options(output_dir=tmp_path / "one", eval_data=(data,), eval_steps=25, **shape)
    two = make_options(
        output_dir=tmp_path / "two", eval_data=(data,), eval_steps=25, per_device_train_batch_size=2, **shape
    )
    train(one)
    train_on_ranks(2, two)
    assert_same_training(two, one)
    for ours, theirs in zip(log_entries(two), log_entries(one), strict=True):
        if "eval_loss" in ours:
            assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-4)
        if "loss" in ours:
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
            assert (ours["tokens"], ours["supervised_tokens"]) == (theirs["tokens"], theirs["supervised_tokens"])


@pytest.mark.parametrize(
    ("num_ranks", "changes"),
    [
        (1, {}),  # a group of one
        (2, {"reshard_after_forward": False}),
        (3, {"activation_checkpointing": "full", "weight_decay": 0.1}),  # rows that do not divide evenly
    ],
)
def test_an_architecture_with_biases_and_a_tied_head(
    make_options: MakeOptions,
    tmp_path: Path,
    data: Path,
    bpe_tokenizer_directory: Path,
    num_ranks: int,
    changes: dict[str, Any],
) -> None:
    base = save_qwen(tmp_path / "qwen", bpe_tokenizer_directory)
    shape = {
        "model": base,
        "data": (data,),
        "max_steps": 4,
        "rows_per_step": 6,
        "save_steps": 0,
        **changes,
    }
    one = make_options(output_dir=tmp_path / "one", **shape)
    many = make_options(output_dir=tmp_path / "many", fsdp="on", **shape)
    train(one)
    train_on_ranks(num_ranks, many)
    assert_same_training(many, one)
    assert (many.output_dir / "model/model.safetensors.index.json").read_bytes() == (
        base / "model.safetensors.index.json"
    ).read_bytes()


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_another_number_of_ranks_goes_on(
    make_options: MakeOptions, tmp_path: Path, data: Path, first: int, second: int
) -> None:
    shape: dict[str, Any] = {"data": (data,), "max_steps": 12, "save_steps": 5, "eval_data": (data,)}
    shape |= {"gradient_accumulation_steps": 2 if first == 2 else 4}
    clean, moved = (
        make_options(output_dir=tmp_path / "clean", **shape),
        make_options(output_dir=tmp_path / "moved", **shape),
    )
    train_on_ranks(first, clean)
    assert on_ranks(first, lambda _: stop_after(moved, 7)) == [143 << 8] * first
    train_on_ranks(second, moved)
    assert steps_logged(moved) == list(range(1, 13))
    assert_same_training(moved, clean)


def test_a_checkpoint_after_an_evaluation_has_all_of_the_state(
    make_options: MakeOptions, tmp_path: Path, data: Path
) -> None:
    # What an evaluation gathered and no backward pass dropped again must not be taken for the weights.
    shape: dict[str, Any] = {"data": (data,), "max_steps": 6, "rows_per_step": 4, "save_steps": 3}
    shape |= {"eval_data": (data,), "eval_steps": 3, "reshard_after_forward": False}
    clean, moved = (
        make_options(output_dir=tmp_path / "clean", **shape),
        make_options(output_dir=tmp_path / "m", **shape),
    )
    train_on_ranks(2, clean)
    assert on_ranks(2, lambda _: stop_after(moved, 4)) == [143 << 8] * 2
    shutil.rmtree(moved.output_dir / "checkpoints/step-00000004")
    train_on_ranks(2, moved)
    for name, weight in weights(moved).items():
        assert torch.equal(weight, weights(clean)[name])


def stop_after(options: TrainOptions, step: int) -> None:
    """Train, with SIGTERM for the last rank only, in the middle of a step."""
    original = loop.Trainer.step

    def step_and_signal(self: loop.Trainer) -> Any:
        if self.steps_done + 1 == step and self.ranks.rank == self.ranks.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    loop.Trainer.step = step_and_signal  # type: ignore[method-assign]
    result = train(options)
    assert result.stopped_by == signal.SIGTERM
    raise SystemExit(143)
