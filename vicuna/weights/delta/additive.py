"""Additive differences: target minus base in the target's dtype, and corrections of the numbers their sum misses.

The delta's tensors are what FastChat's own tool adds to a base: `round(target - base)` in the target's dtype. Adding
them back rounds again, so up to two in a hundred numbers miss the target by their last bit. Those are listed as
corrections, and with them the sum is the target, bit for bit. Called by `makers`, `restore` and `published` with a few
MiB at a time.

The sum is the same on every machine: it is taken in fp32, which holds every fp16 and bf16 number and enough bits of
their sum to round it correctly, and every NaN becomes the same one, because processors differ in NaNs.
"""

import numpy as np

from vicuna.errors import require
from vicuna.weights.delta.bits import (
    BLOCK,
    Bits,
    as_bits,
    fold,
    from_ordered,
    from_planes,
    to_ordered,
    to_planes,
    unfold,
)
from vicuna.weights.delta.codec import decompress
from vicuna.weights.files.numbers import QUIET_NANS, Floats
from vicuna.weights.files.tensors import ELEMENT_BYTES, Buffer


def subtract(target: Buffer, base: Buffer, dtype: str) -> Buffer:
    """`target - base`, rounded to their dtype."""
    return _combine(np.subtract, target, base, dtype)


def add(base: Buffer, delta: Buffer, dtype: str) -> Buffer:
    """`base + delta`, rounded to their dtype."""
    return _combine(np.add, base, delta, dtype)


def find_corrections(target: Buffer, total: Buffer, dtype: str) -> tuple[int, bytes]:
    """The corrections that make `total` the `target`: how many, and their indices and differences, compressed."""
    wanted, found = as_bits(target, dtype), as_bits(total, dtype)
    indices = np.flatnonzero(wanted != found).astype("<u4")
    if not len(indices):
        return 0, b""
    gaps = np.diff(indices, prepend=np.uint32(0)).astype("<u4")
    differences = fold(to_ordered(wanted[indices]) - to_ordered(found[indices]))
    zstandard = require("zstandard", "export")
    packed: bytes = zstandard.ZstdCompressor(level=3).compress(b"".join([to_planes(gaps), to_planes(differences)]))
    return len(indices), packed


def correct(total: Buffer, count: int, packed: bytes, dtype: str) -> Buffer:
    """`total` with its corrections: the target.

    Raises:
        ValueError: the list is damaged.
    """
    if not count:
        return total
    width, numbers = ELEMENT_BYTES[dtype], as_bits(total, dtype).copy()
    planes = decompress(packed, count * (4 + width)) if count <= len(numbers) else b""
    if len(planes) != count * (4 + width):
        raise ValueError("corrections of another size")
    indices = np.cumsum(from_planes(planes[: 4 * count], 4), dtype="<u8")
    if indices[-1] >= len(numbers):
        raise ValueError("a correction beyond the end")
    numbers[indices] = from_ordered(to_ordered(numbers[indices]) + unfold(from_planes(planes[4 * count :], width)))
    return numbers.data.cast("B")


def _combine(function: np.ufunc, left: Buffer, right: Buffer, dtype: str) -> Buffer:
    a, b = as_bits(left, dtype), as_bits(right, dtype)
    result: Bits = np.empty_like(a)
    widened = np.empty((2, min(BLOCK, len(a))), "<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(a), BLOCK):
            part = slice(start, start + BLOCK)
            x, y = widened[:, : len(a[part])]
            _widen(a[part], dtype, x)
            _widen(b[part], dtype, y)
            function(x, y, out=x)
            _round(x, dtype, result[part])
    return result.data.cast("B")


_ALL_HALVES: Floats | None = None  # every fp16 number in fp32, by its bit pattern


def _widen(bits: Bits, dtype: str, out: Floats) -> None:
    """The numbers in fp32, exactly."""
    global _ALL_HALVES
    if dtype == "F32":
        out[:] = bits.view("<f4")
    elif dtype == "BF16":
        np.left_shift(bits, 16, out=out.view("<u4"), dtype="<u4")
    else:
        if _ALL_HALVES is None:  # looking a number up is twice as fast as numpy's own conversion
            _ALL_HALVES = np.arange(1 << 16, dtype="<u2").view("<f2").astype("<f4")
        np.take(_ALL_HALVES, bits, out=out, mode="clip")


def _round(numbers: Floats, dtype: str, out: Bits) -> None:
    """fp32 numbers in the dtype, rounded to nearest, ties to even; every NaN becomes the same quiet NaN."""
    if dtype == "BF16":
        bits = numbers.view("<u4")
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        out[:] = rounded
    else:
        out.view("<f2" if dtype == "F16" else "<f4")[:] = numbers
    if len(numbers) and np.isnan(numbers.max()):
        out[np.isnan(numbers)] = QUIET_NANS[dtype]
