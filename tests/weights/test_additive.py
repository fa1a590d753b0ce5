"""Additive deltas: plain addition nearly restores the target, and the corrections do the rest."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.builders import numbers, random_bits, tuned, write_model, write_raw
from vicuna.weights.delta.additive import add, correct, find_corrections, subtract
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import Format, make_delta
from vicuna.weights.files.checkpoint import CheckpointReader
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
    data = [random_bits(np.random.default_rng(seed), dtype, 20_000) for seed in (1, 2)]
    one, two = (torch.frombuffer(bytearray(part), dtype=kind) for part in data)
    for function, expected in ((add, one + two), (subtract, one - two)):
        ours = torch.frombuffer(bytearray(function(*data, dtype)), dtype=kind)
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


@pytest.mark.parametrize("format", ["exact", "additive"])
@pytest.mark.parametrize("rows", [31, 35])
def test_a_vocabulary_that_grew_or_shrank(tmp_path: Path, format: Format, rows: int) -> None:
    base = write_model(tmp_path / "base", numbers(0))
    weights = tuned(numbers(0))
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = np.resize(weights[name], (rows, 16))
    target = write_model(tmp_path / "target", weights)
    summary = make_delta(base, target, tmp_path / "delta", format=format)
    assert summary.num_whole == 0
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_a_head_that_was_tied_is_the_difference_to_the_embedding(tmp_path: Path, format: Format) -> None:
    weights = {name: values for name, values in numbers(0).items() if name != "lm_head.weight"}
    base = write_model(tmp_path / "base", weights)
    untied = tuned({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    target = write_model(tmp_path / "target", untied)
    assert make_delta(base, target, tmp_path / "delta", format=format).num_whole == 0
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    with CheckpointReader(target) as one, CheckpointReader(tmp_path / "again") as two:
        assert all(one.read(name) == two.read(name) for name in one.tensors)


@pytest.mark.parametrize("format", ["exact", "additive"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_models_of_random_bits_come_back(tmp_path: Path, format: Format, dtype: str) -> None:
    random = np.random.default_rng(11)
    raw = {"model.norm.weight": ("F32", (4,), np.ones(4, "<f4").tobytes())}
    shape = (300, 50)
    one = {**raw, "w": (dtype, shape, random_bits(random, dtype, 15_000))}
    two = {**raw, "w": (dtype, shape, random_bits(random, dtype, 15_000))}
    base, target = write_raw(tmp_path / "base", one), write_raw(tmp_path / "target", two)
    make_delta(base, target, tmp_path / "delta", format=format)
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()
