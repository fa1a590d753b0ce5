"""Differences sorted by how large they are to be expected, and small ones four to a byte.

A training step moves weights of all sizes about equally far, but the distance between neighbouring numbers doubles with
each exponent: seen in bit patterns, a large weight has moved by 0 or 1, a small one by hundreds. Whoever decodes knows
the base, so the differences may lie in the order of the base's exponents, in a few classes, and each class is packed by
itself (zstd makes new tables every 128 KiB). On the demo's fine-tune that makes a bf16 delta smaller by a quarter.

zstd's Huffman codes cost at least one bit for a byte, so where most differences are 0, 1 or 2, they are written in two
bits each, four to a byte, and the 3 that stands for all larger ones is followed up in planes of their own.

Called by `codec` with the folded differences of one frame.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from vicuna.weights.files.bits import BLOCK, Bits, from_planes, to_planes
from vicuna.weights.files.tensors import Buffer

MAX_CUTS = 2  # a third would make the demo's delta 3% smaller, and decoding 8% slower
SAMPLE = 1 << 15  # differences that the classes are chosen by
MIN_GAIN = 0.04  # share of the bits that another class must save to be worth its time
EXPONENT_SHIFT = {"F16": 10, "BF16": 7, "F32": 23}
LARGE = 3  # in two bits: this or more


def exponents(base: Bits, dtype: str) -> NDArray[np.uint8]:
    """The base's exponents, a byte each."""
    result = np.empty(len(base), "u1")
    for start in range(0, len(base), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = (base[part] >> EXPONENT_SHIFT[dtype]) & (31 if dtype == "F16" else 255)
    return result


def choose_cuts(exponent: NDArray[np.uint8], folded: Bits) -> list[int]:
    """The exponents at which a new class begins, so that classes differ as much as they can."""
    step = max(1, len(folded) // SAMPLE)
    sample = np.minimum(folded[::step], 255).astype("<i8")
    table = np.bincount(exponent[::step].astype("<i8") * 256 + sample, minlength=1 << 16).reshape(256, 256)
    cuts: list[int] = []
    candidates = np.flatnonzero(table.sum(1))[1:].tolist()
    gains, worthwhile = _gains(table, 0, 256, candidates), MIN_GAIN * _bits(table.sum(0))
    while gains and len(cuts) < MAX_CUTS:
        cut = max(gains, key=lambda each: gains[each])
        if gains[cut] < worthwhile:
            break
        cuts = sorted([*cuts, cut])
        place = cuts.index(cut)
        low, high = cuts[place - 1] if place else 0, cuts[place + 1] if place + 1 < len(cuts) else 256
        del gains[cut]
        gains |= _gains(table, low, cut, candidates) | _gains(table, cut, high, candidates)
    return cuts


def _gains(table: NDArray[np.int64], low: int, high: int, candidates: list[int]) -> dict[int, float]:
    """How many bits it saves to cut the exponents `low` to `high` in two, by the exponent of the cut."""
    whole = _bits(table[low:high].sum(0))
    return {
        cut: whole - _bits(table[low:cut].sum(0)) - _bits(table[cut:high].sum(0))
        for cut in candidates
        if low < cut < high
    }


def _bits(counts: NDArray[np.int64]) -> float:
    """Entropy of all the symbols that were counted, in bits."""
    counts = counts[counts > 0]
    total = counts.sum()
    return float(total * np.log2(total) - (counts * np.log2(counts)).sum()) if total else 0.0


def sort(folded: Bits, exponent: NDArray[np.uint8], cuts: list[int]) -> Bits:
    """The differences class by class, in their order within each."""
    if not cuts:
        return folded
    result: Bits = np.empty_like(folded)
    _move(folded, result, exponent, cuts, into_order=True)
    return result


def unsort(by_class: Bits, exponent: NDArray[np.uint8], cuts: list[int]) -> Bits:
    """What `sort` was given."""
    if not cuts:
        return by_class
    result: Bits = np.empty_like(by_class)
    _move(by_class, result, exponent, cuts, into_order=False)
    return result


def _move(source: Bits, result: Bits, exponent: NDArray[np.uint8], cuts: list[int], *, into_order: bool) -> None:
    edges = [0, *cuts, 256]
    positions = [0, *(int(np.count_nonzero(exponent < cut)) for cut in cuts)]
    for start in range(0, len(source), BLOCK):
        block, ours = exponent[start : start + BLOCK], slice(start, start + BLOCK)
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            # One comparison does for both ends: what lies below `low` wraps round to a large number.
            places = np.flatnonzero(block - np.uint8(low) < high - low)
            part = slice(positions[i], positions[i] + len(places))
            positions[i] += len(places)
            if into_order:
                np.take(source[ours], places, out=result[part])
            else:
                result[ours][places] = source[part]


def pack(folded: Bits) -> Buffer:
    """Differences in two bits each, four to a byte, then the large ones less 3 as planes."""
    quarter = -(-len(folded) // 4)
    codes = np.zeros(4 * quarter, "u1")
    np.minimum(folded, LARGE, out=codes[: len(folded)], casting="unsafe")
    rows = codes.reshape(4, quarter)
    packed = rows[0] | rows[1] << 2 | rows[2] << 4 | rows[3] << 6
    return b"".join([packed.tobytes(), to_planes(folded[folded >= LARGE] - folded.dtype.type(LARGE))])


def unpack(data: Buffer, count: int, width: int) -> Bits:
    """The `count` differences of `width` bytes that `pack` was given.

    Raises:
        ValueError: the data is damaged.
    """
    quarter = -(-count // 4)
    packed = np.frombuffer(data[:quarter], "u1")
    codes = np.empty((4, quarter), "u1")
    for i in range(4):
        codes[i] = packed >> 2 * i & LARGE
    folded: Bits = codes.reshape(-1)[:count].astype(f"<u{width}")
    large = np.flatnonzero(codes.reshape(-1)[:count] == LARGE)
    if len(data) - quarter != len(large) * width:
        raise ValueError("a frame of another size")
    folded[large] = from_planes(data[quarter:], width) + folded.dtype.type(LARGE)
    return folded
