"""Small checkpoints for tests, written with our own writer."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vicuna.weights.files.checkpoint import INDEX_NAME, write_checkpoint
from vicuna.weights.files.numbers import Floats
from vicuna.weights.files.tensors import ELEMENT_BYTES, Tensor, split_into_shards

SHAPES = {
    "lm_head.weight": (33, 16),
    "model.embed_tokens.weight": (33, 16),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.norm.weight": (16,),
}


def numbers(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Floats]:
    """Weights like a model's: norms near 1, the rest near 0. (fp32)"""
    random = np.random.default_rng(seed)
    return {
        name: (random.normal(1 if name.endswith("norm.weight") else 0, 0.02, shape)).astype("<f4")
        for name, shape in shapes.items()
    }


def tuned(weights: dict[str, Floats], seed: int = 1) -> dict[str, Floats]:
    """The same weights after a little training."""
    random = np.random.default_rng(seed)
    return {name: (value + random.normal(0, 1e-4, value.shape)).astype("<f4") for name, value in weights.items()}


def to_bytes(values: Floats, dtype: str) -> bytes:
    """fp32 numbers in another dtype (bfloat16 by cutting off)."""
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def write_raw(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], shard_bytes: int = 1 << 30) -> Path:
    """A checkpoint of given bytes: `{name: (dtype, shape, data)}`, with configuration and tokenizer files."""
    folder.mkdir(parents=True)
    plain = [Tensor(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()]
    shards, index = split_into_shards(plain, max_shard_bytes=shard_bytes)
    write_checkpoint(folder, shards, index, lambda tensor: [tensors[tensor.name][2]])
    assert (index is not None) == (folder / INDEX_NAME).exists()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 33}))
    (folder / "tokenizer.json").write_text('{"model": "made up"}')
    return folder


def write_model(folder: Path, weights: dict[str, Floats], dtype: str = "F16", shard_bytes: int = 1 << 30) -> Path:
    """A checkpoint of fp32 numbers cast to `dtype`."""
    raw = {name: (dtype, value.shape, to_bytes(value, dtype)) for name, value in weights.items()}
    return write_raw(folder, raw, shard_bytes)


def random_bits(random: np.random.Generator, dtype: str, count: int) -> bytes:
    """Bit patterns of every kind: normal numbers, NaNs with payloads, infinities, subnormals, both zeros."""
    width = ELEMENT_BYTES[dtype]
    bits = random.integers(0, 256, count * width, dtype=np.uint8).view(f"<u{width}").copy()
    exponent = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}[dtype]
    kinds = random.integers(0, 6, count)
    bits[kinds == 0] |= exponent  # infinities and NaNs
    bits[kinds == 1] &= ~np.array(exponent, bits.dtype)  # subnormals and zeros
    bits[kinds == 2] &= np.array(1 << (8 * width - 1), bits.dtype)  # zeros, plus and minus
    return bits.tobytes()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below it, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def model_files(folder: Path) -> dict[str, bytes]:
    """A model's files without its manifest."""
    return {name: data for name, data in files_of(folder).items() if name != "vicuna_manifest.json"}


def wait_until(is_so: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.005)
