"""Additive differences: plain addition nearly restores the target, and the corrections do the rest."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.builders import numbers, random_bits, tuned, write_model
from vicuna.weights.delta.additive import add, correct, find_corrections, subtract
from vicuna.weights.delta.make import make_delta
from vicuna.weights.files.tensors import FLOATS

HALVES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_any_bit_patterns_come_back(dtype: str, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    base, target = random_bits(random, dtype, count), random_bits(random, dtype, count)
    total = add(base, subtract(target, base, dtype), dtype)
    num_corrections, packed = find_corrections(target, total, dtype)
    assert correct(total, num_corrections, packed, dtype) == target


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_are_pytorchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, HALVES[dtype])
    left, right = (random_bits(np.random.default_rng(seed), dtype, 20_000) for seed in (1, 2))
    one, two = (torch.frombuffer(bytearray(part), dtype=kind) for part in (left, right))
    for total, expected in ((add(left, right, dtype), one + two), (subtract(left, right, dtype), one - two)):
        ours = torch.frombuffer(bytearray(total), dtype=kind)
        assert torch.equal(ours.isnan(), expected.isnan())
        assert torch.equal(ours[~ours.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_another_tool_adds_is_nearly_the_target(tmp_path: Path, dtype: str) -> None:
    """FastChat's loop: every parameter of the base plus the tensor of that name, in their dtype."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    shapes = {"model.w.weight": (200, 300), "model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes), dtype)
    target = write_model(tmp_path / "target", tuned(numbers(0, shapes)), dtype)
    summary = make_delta(base, target, tmp_path / "delta", format="additive")
    one, delta, wanted = (
        safetensors.load_file(tmp_path / n / "model.safetensors") for n in ("base", "delta", "target")
    )
    missed = 0
    for name, value in one.items():
        total = value + delta[name]
        missed += int(
            (total.view(torch.uint8) != wanted[name].view(torch.uint8)).reshape(total.numel(), -1).any(1).sum()
        )
        assert torch.allclose(total.float(), wanted[name].float(), rtol=0.02, atol=1e-4)
    assert missed == summary.num_corrections
    assert (tmp_path / "delta" / "config.json").read_bytes() == (target / "config.json").read_bytes()
