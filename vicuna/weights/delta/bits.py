"""Bit patterns of numbers as integers: in the order of the numbers, as zigzag-folded differences, as byte planes.

`codec` compresses differences, `magnitude_buckets` sorts them, `additive` stores corrections this way. All work is done
in blocks that fit into the processor's cache.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.weights.files.tensors import ELEMENT_BYTES, Buffer

Bits = NDArray[Any]  # (N,) of an unsigned integer type
BLOCK = 1 << 16  # numbers


def as_bits(data: Buffer, dtype: str) -> Bits:
    """Little-endian bytes of a dtype as unsigned integers of its width."""
    bits: Bits = np.frombuffer(data, f"<u{ELEMENT_BYTES[dtype]}")
    return bits


def to_ordered(bits: Bits) -> Bits:
    """Bit patterns of floating point numbers as integers that are ordered as the numbers are. One to one."""
    return bits ^ _sign_mask(bits)


def from_ordered(integers: Bits) -> Bits:
    """The bit patterns that `to_ordered` was given."""
    return integers ^ _sign_mask(~integers)


def fold(difference: Bits) -> Bits:
    """Zigzag: signed differences 0, -1, 1, -2 .. (modulo 2^width) as 0, 1, 2, 3 .."""
    signs: Bits = (difference.view(f"<i{difference.itemsize}") >> (8 * difference.itemsize - 1)).view(difference.dtype)
    return (difference << 1) ^ signs


def unfold(folded: Bits) -> Bits:
    """The differences that `fold` was given."""
    return (folded >> 1) ^ -(folded & 1)


def subtract_folded(target: Bits, base: Bits) -> Bits:
    """The folded difference of each bit pattern to the base's, counted in representable numbers."""
    result: Bits = np.empty_like(target)
    for start in range(0, len(target), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = fold(to_ordered(target[part]) - to_ordered(base[part]))
    return result


def add_folded(base: Bits, folded: Bits) -> Bits:
    """The target that `subtract_folded` was given, written over `folded`."""
    for start in range(0, len(folded), BLOCK):
        part = slice(start, start + BLOCK)
        folded[part] = from_ordered(to_ordered(base[part]) + unfold(folded[part]))
    return folded


def to_planes(bits: Bits) -> Buffer:
    """Byte planes: the lowest byte of every integer, then the second of every integer, and so on."""
    planes = np.empty((bits.itemsize, len(bits)), "u1")
    for start in range(0, len(bits), BLOCK):
        part = slice(start, start + BLOCK)
        for i in range(bits.itemsize):  # shifts are eight times as fast here as a transposed copy of the bytes
            planes[i, part] = bits[part] >> 8 * i
    return planes.data.cast("B") if planes.size else b""


def from_planes(planes: Buffer, width: int) -> Bits:
    """The integers of `width` bytes that `to_planes` was given."""
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
