"""Weights, gradients and optimizer in the host's memory: the same training, where there is a device to spare."""

from pathlib import Path

import pytest
import torch

from tests.train.builders import MakeOptions, losses, weights
from vicuna.train import prepare
from vicuna.train.loop import train


def test_offloaded_training_is_the_same_training(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make_options(output_dir=tmp_path / "here", fsdp="on", gradient_accumulation_steps=2, max_grad_norm=0.5)
    train(here)
    monkeypatch.setattr(prepare, "choose_sharding", lambda *_: True)  # which would say that a CPU has no host
    there = make_options(
        output_dir=tmp_path / "there", cpu_offload=True, gradient_accumulation_steps=2, max_grad_norm=0.5
    )
    train(there)
    assert losses(here) == losses(there)
    assert all(torch.equal(weight, weights(there)[name]) for name, weight in weights(here).items())
