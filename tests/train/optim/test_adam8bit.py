"""Moments of 8 bits: what they hold, what they cost, and that training with them is training."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.builders import MakeOptions, losses, make_records, write_records
from tests.train.launch import on_ranks
from vicuna.train.loop import train
from vicuna.train.optim.adam8bit import BLOCK, AdamW8bit, dynamic_table, pack, unpack
from vicuna.train.options import TrainOptions
from vicuna.train.save.checkpoint import whole_checkpoints


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("width", [1, 32, BLOCK, BLOCK + 1, 1000])
def test_packing_what_was_unpacked_changes_nothing(is_signed: bool, width: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(5, width) * torch.logspace(-6, 0, 5).unsqueeze(1)
    values[2] = 0
    codes, scale = pack(values if is_signed else values.abs(), is_signed=is_signed)
    assert codes.shape == (5, width)
    assert scale.shape == (5, -(-width // BLOCK))
    again = pack(unpack(codes, scale, is_signed=is_signed), is_signed=is_signed)
    assert torch.equal(codes, again[0])
    assert torch.equal(scale, again[1])


@pytest.mark.parametrize("is_signed", [True, False])
def test_numbers_near_the_largest_are_kept_within_two_percent_of_it(is_signed: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(64, BLOCK) if is_signed else torch.rand(64, BLOCK)
    found = unpack(*pack(values, is_signed=is_signed), is_signed=is_signed)
    assert ((found - values).abs() / values.abs().amax(dim=1, keepdim=True)).max() < 0.02
    assert torch.equal(found.abs().amax(dim=1), values.abs().amax(dim=1))
    assert len(dynamic_table(is_signed=is_signed)) <= 256


def test_a_second_moment_is_never_rounded_to_zero() -> None:
    values = torch.tensor([[1.0, 1e-9, 0.0]])
    found = unpack(*pack(values, is_signed=False), is_signed=False)
    assert found[0, 1] > 0
    assert found[0, 2] == 0


def test_it_follows_adamw_and_takes_two_bytes_a_weight() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(64, 512)), torch.nn.Parameter(torch.randn(64))]
    exact = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    ours = AdamW8bit([{"params": weights, "weight_decay": 0.1}], lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    theirs = torch.optim.AdamW(exact, lr=1e-2, weight_decay=0.1)
    start = [weight.detach().clone() for weight in weights]
    target = [torch.randn_like(weight) for weight in weights]
    for _ in range(40):
        for group, optimizer in ((weights, ours), (exact, theirs)):
            for weight, goal in zip(group, target, strict=True):
                weight.grad = weight.detach() - goal
            optimizer.step()
    for weight, other, begin in zip(weights, exact, start, strict=True):
        assert (weight - other).norm() < 0.05 * (other - begin).norm()
    torch.testing.assert_close(weights[1], exact[1])  # a vector's moments are kept in fp32
    size = sum(value.nbytes for value in ours.state[weights[0]].values() if value.ndim)
    assert size < 2.05 * weights[0].numel()


def test_training_with_it_loses_as_fast(make_options: MakeOptions, tmp_path: Path) -> None:
    shape: dict[str, Any] = {"max_steps": 30, "learning_rate": 5e-3, "save_steps": 0}
    exact = make_options(output_dir=tmp_path / "exact", **shape)
    packed = make_options(output_dir=tmp_path / "packed", optim="adamw_8bit", **shape)
    train(exact)
    train(packed)
    assert losses(packed) == pytest.approx(losses(exact), rel=0.05)
    assert losses(packed)[-1] < 0.8 * losses(packed)[0]


def test_resumed_on_as_many_ranks_it_ends_with_the_same_bits_and_on_others_with_the_same_losses(
    make_options: MakeOptions, tmp_path: Path
) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(40))
    shape: dict[str, Any] = {"data": (data,), "optim": "adamw_8bit", "rows_per_step": 4, "save_steps": 3}

    def run(name: str, num_ranks: int) -> TrainOptions:
        options = make_options(output_dir=tmp_path / name, **shape)
        assert on_ranks(num_ranks, lambda _: train(options)) == [0] * num_ranks
        return options

    clean = run("clean", 2)
    for name, num_ranks in (("same", 2), ("other", 1)):
        first = run(name, 2)
        whole = whole_checkpoints(first.output_dir)
        assert [path.name for path in whole] == ["step-00000003"]
        (first.output_dir / "model").rename(tmp_path / f"{name}-model")
        again = run(name, num_ranks)
        assert losses(again) == pytest.approx(losses(clean), abs=1e-4)
    assert digest(tmp_path / "same") == digest(tmp_path / "clean")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model/model.safetensors").read_bytes()).hexdigest()
