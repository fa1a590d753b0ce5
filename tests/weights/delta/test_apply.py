"""Base + delta = target, bit for bit, or one line that says what is wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import SHAPES, model_files, numbers, random_bits, tuned, write_model, write_raw
from vicuna.errors import VerificationError, VicunaError
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import Format, make_delta
from vicuna.weights.files.tensors import FLOATS


@pytest.mark.parametrize("format", ["exact", "additive"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 600])
def test_the_target_comes_back_byte_for_byte(tmp_path: Path, dtype: str, shard_bytes: int, format: Format) -> None:
    base = write_model(tmp_path / "base", numbers(0), dtype)
    target = write_model(tmp_path / "target", tuned(numbers(0)), dtype, shard_bytes)
    make_delta(base, target, tmp_path / "delta", format=format)
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert model_files(tmp_path / "again") == model_files(target)


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_dtypes_shards_and_shapes_may_differ(tmp_path: Path, format: Format) -> None:
    """An fp32 base in shards; a bf16 target with more rows, an integer tensor, and one tensor less."""
    base = write_model(tmp_path / "base", numbers(0), "F32", shard_bytes=600)
    weights = tuned(numbers(0))
    del weights["lm_head.weight"]
    weights["model.embed_tokens.weight"] = np.vstack([weights["model.embed_tokens.weight"], np.ones((2, 16), "<f4")])
    raw = {
        name: ("BF16", value.shape, (value.view("<u4") >> 16).astype("<u2").tobytes())
        for name, value in weights.items()
    }
    raw["steps"] = ("I64", (), (7).to_bytes(8, "little"))
    raw["empty"] = ("F16", (0, 4), b"")
    target = write_raw(tmp_path / "target", raw)
    summary = make_delta(base, target, tmp_path / "delta", format=format)
    assert summary.num_whole == 2  # the integers, and the empty one that the base has not
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert model_files(tmp_path / "again") == model_files(target)


def test_a_large_tensor_spans_frames(tmp_path: Path) -> None:
    shapes = {"model.big.weight": (1500, 1500), "model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes), "F32")
    target = write_model(tmp_path / "target", tuned(numbers(0, shapes)), "F32")
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert model_files(tmp_path / "again") == model_files(target)


def test_wrong_base_is_refused_by_name(tmp_path: Path, delta: Path) -> None:
    other = numbers(0)
    other["model.layers.0.self_attn.q_proj.weight"] += 1
    wrong = write_model(tmp_path / "wrong", other)
    with pytest.raises(VerificationError, match=r"is not this delta's base: tensor 'model.layers.0.self_attn.q_proj"):
        apply_delta(wrong, delta, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_base_of_another_shape_is_refused_by_name(tmp_path: Path, delta: Path) -> None:
    shapes = {**SHAPES, "lm_head.weight": (32, 16)}
    wrong = write_model(tmp_path / "wrong", numbers(0, shapes))
    with pytest.raises(VerificationError, match=r"needs lm_head.weight F16 \[33, 16\], the base has .*\[32, 16\]"):
        apply_delta(wrong, delta, tmp_path / "again")


def test_applying_twice_says_so(tmp_path: Path, base: Path, delta: Path) -> None:
    apply_delta(base, delta, tmp_path / "again")
    with pytest.raises(VerificationError, match="is already the target of this delta"):
        apply_delta(tmp_path / "again", delta, tmp_path / "twice")


def test_a_model_is_no_delta(tmp_path: Path, base: Path, target: Path) -> None:
    with pytest.raises(VicunaError, match="is a model, not a delta"):
        apply_delta(base, target, tmp_path / "again")


def test_a_filled_target_is_left_alone(tmp_path: Path, base: Path, delta: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine").write_text("precious")
    with pytest.raises(VicunaError, match="not empty"):
        apply_delta(base, delta, tmp_path / "again")
    assert (tmp_path / "again" / "mine").read_text() == "precious"


def test_no_room(tmp_path: Path, base: Path, delta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(VicunaError, match="MiB free"):
        apply_delta(base, delta, tmp_path / "again")
    assert not (tmp_path / "again").exists()


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
