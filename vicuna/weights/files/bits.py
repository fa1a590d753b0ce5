"""Bit patterns of numbers as integers: in the numbers' order, as folded differences, as planes of bytes.

Comes before `codec`, which compresses them, `classes`, which sorts them, and `additive`. All work is done in blocks
that stay in the processor's cache.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.weights.files.tensors import ELEMENT_BYTES, Buffer

Bits = NDArray[Any]  # of an unsigned type
BLOCK = 1 << 16  # numbers


def as_bits(data: Buffer, dtype: str) -> Bits:
    """Little-endian bytes of a dtype as unsigned integers of its width."""
    bits: Bits = np.frombuffer(data, f"<u{ELEMENT_BYTES[dtype]}")
    return bits


def ordered(bits: Bits) -> Bits:
    """Bit patterns as integers in the order of their numbers; a bijection."""
    return bits ^ _sign_mask(bits)


def unordered(integers: Bits) -> Bits:
    return integers ^ _sign_mask(~integers)


def fold(difference: Bits) -> Bits:
    """Signed differences 0, -1, 1, -2 .. (modulo 2^width) as 0, 1, 2, 3 .."""
    signs: Bits = (difference.view(f"<i{difference.itemsize}") >> (8 * difference.itemsize - 1)).view(difference.dtype)
    return (difference << 1) ^ signs


def unfold(folded: Bits) -> Bits:
    return (folded >> 1) ^ -(folded & 1)


def subtract_folded(target: Bits, base: Bits) -> Bits:
    """How far each pattern is from the base's, folded."""
    result: Bits = np.empty_like(target)
    for start in range(0, len(target), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = fold(ordered(target[part]) - ordered(base[part]))
    return result


def add_folded(base: Bits, folded: Bits) -> Bits:
    """The patterns that `subtract_folded` was given; `folded` is overwritten with them."""
    for start in range(0, len(folded), BLOCK):
        part = slice(start, start + BLOCK)
        folded[part] = unordered(ordered(base[part]) + unfold(folded[part]))
    return folded


def to_planes(bits: Bits) -> Buffer:
    """All lowest bytes, then all second ones, and so on."""
    planes = np.empty((bits.itemsize, len(bits)), "u1")
    for start in range(0, len(bits), BLOCK):
        part = slice(start, start + BLOCK)
        for i in range(bits.itemsize):  # shifts are eight times as fast here as a transposed copy of the bytes
            planes[i, part] = bits[part] >> 8 * i
    return planes.data.cast("B") if planes.size else b""


def from_planes(planes: Buffer, width: int) -> Bits:
    """What `to_planes` was given."""
    rows = np.frombuffer(planes, "u1").reshape(width, -1)
    bits: Bits = np.empty(rows.shape[1], f"<u{width}")
    for start in range(0, len(bits), BLOCK):
        part = slice(start, start + BLOCK)
        block = bits[part]
        block[:] = rows[-1, part]
        for row in rows[-2::-1]:
            block <<= 8
            block |= row[part]
    return bits


def _sign_mask(bits: Bits) -> Bits:
    """All ones where the top bit is set, the top bit alone elsewhere."""
    top = 8 * bits.itemsize - 1
    mask: Bits = (bits.view(f"<i{bits.itemsize}") >> top).view(bits.dtype)
    mask |= bits.dtype.type(1 << top)
    return mask
