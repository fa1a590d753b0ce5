"""A run on the tiny model: what a step does, what is logged, and how a run ends."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.builders import MakeOptions, log_entries, losses, make_records, weights, write_records
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.save.checkpoint import whole_checkpoints


def test_learning_lowers_the_held_out_loss(make_options: MakeOptions, tmp_path: Path) -> None:
    held_out = write_records(tmp_path / "held_out.jsonl", make_records(4, seed=9))
    options = make_options(eval_data=(held_out,), eval_steps=10, max_steps=30, learning_rate=5e-3)
    result = train(options)
    assert result.model == options.output_dir / "model"
    measured = {entry["step"]: entry["eval_loss"] for entry in log_entries(options, "eval_loss")}
    assert list(measured) == [0, 10, 20, 30]
    assert measured[30] < 0.8 * measured[0]
    steps = log_entries(options, "loss")
    assert [entry["step"] for entry in steps] == list(range(1, 31))
    assert {"learning_rate", "grad_norm", "tokens", "supervised_tokens", "tokens_per_second", "epoch"} <= set(steps[0])
    assert (options.output_dir / "loss.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("per_device", [1, 2, 4])
def test_a_step_does_not_depend_on_how_it_is_cut(make_options: MakeOptions, tmp_path: Path, per_device: int) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(40))
    shape = {"data": (data,), "max_length": 200, "max_steps": 2, "save_steps": 0}
    whole = make_options(**shape, output_dir=tmp_path / "whole", per_device_train_batch_size=8)
    cut = make_options(
        **shape,
        output_dir=tmp_path / "cut",
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=8 // per_device,
    )
    train(whole)
    train(cut)
    assert losses(whole) == pytest.approx(losses(cut), rel=1e-5)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weight, weights(cut)[name], rtol=1e-4, atol=1e-5)


def test_a_prefix_computed_once_gives_the_same_run(make_options: MakeOptions, tmp_path: Path) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(40))
    shape = {"data": (data,), "max_length": 200, "row_length": 800, "max_steps": 5, "save_steps": 0}
    once, each = (
        make_options(**shape, output_dir=tmp_path / share, share_prefix=share, eval_data=(data,))
        for share in ("auto", "off")
    )
    train(once)
    train(each)
    assert losses(once) == pytest.approx(losses(each), rel=1e-5)
    for one, other in zip(log_entries(once, "loss"), log_entries(each, "loss"), strict=True):
        assert (one["tokens"], one["supervised_tokens"]) == (other["tokens"], other["supervised_tokens"])
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    measured = [[entry["eval_loss"] for entry in log_entries(options, "eval_loss")] for options in (once, each)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def test_an_export_that_fails_loses_no_step(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options(save_steps=0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "full", "model")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(loop, "export_model", full)
        train(options)
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000006"]
    assert train(options).model == options.output_dir / "model"


def test_a_finished_run_is_not_trained_again(make_options: MakeOptions) -> None:
    options = make_options()
    train(options)
    before = (options.output_dir / "model/model.safetensors").stat().st_mtime_ns
    assert train(options).model == options.output_dir / "model"
    assert (options.output_dir / "model/model.safetensors").stat().st_mtime_ns == before
