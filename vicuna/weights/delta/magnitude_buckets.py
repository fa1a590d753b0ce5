"""Differences grouped into buckets by the magnitude of the base's weight, so that each bucket compresses well.

A training step moves weights of all magnitudes about equally far, but the distance between neighbouring representable
numbers doubles with each exponent: counted in representable numbers, a large weight has moved by 0 or 1, a small one by
hundreds. Whoever decodes has the base, so the differences may be stored in the order of the base's exponents, in a few
buckets; zstd makes new Huffman tables every 128 KiB and so fits each bucket. On the demo's fine-tune that makes a bf16
delta smaller by a quarter. Called by `codec` with the folded differences of one frame.

A bucket holds the weights whose exponent is at least one boundary and below the next; boundaries are rising exponents,
and the first bucket begins at 0. Shapes: N numbers of the frame.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from vicuna.weights.delta.bits import BLOCK, Bits

MAX_BOUNDARIES = 2  # a third would make the demo's delta 3% smaller, and decoding 8% slower
NUM_SAMPLED = 1 << 15  # differences by which the boundaries are chosen
MIN_GAIN = 0.04  # share of the bits that another bucket must save to be worth its time
EXPONENT_SHIFT = {"F16": 10, "BF16": 7, "F32": 23}
NUM_EXPONENTS = 256

Exponents = NDArray[np.uint8]  # (N,)


def exponents_of(base: Bits, dtype: str) -> Exponents:
    """The exponent bits of the base's numbers, a byte each."""
    result = np.empty(len(base), "u1")
    for start in range(0, len(base), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = (base[part] >> EXPONENT_SHIFT[dtype]) & (31 if dtype == "F16" else 255)
    return result


def choose_boundaries(exponents: Exponents, folded: Bits) -> list[int]:
    """The exponents at which a bucket begins, chosen one after the other by how many bits each saves."""
    stride = max(1, len(folded) // NUM_SAMPLED)
    values = np.minimum(folded[::stride], 255).astype("<i8")
    pairs = exponents[::stride].astype("<i8") * 256 + values
    counts = np.bincount(pairs, minlength=NUM_EXPONENTS * 256).reshape(NUM_EXPONENTS, 256)  # by exponent and difference
    boundaries: list[int] = []
    candidates = np.flatnonzero(counts.sum(1))[1:].tolist()
    gains, worthwhile = _gains(counts, 0, NUM_EXPONENTS, candidates), MIN_GAIN * _entropy_bits(counts.sum(0))
    while gains and len(boundaries) < MAX_BOUNDARIES:
        best = max(gains, key=lambda each: gains[each])
        if gains[best] < worthwhile:
            break
        boundaries = sorted([*boundaries, best])
        edges = [0, *boundaries, NUM_EXPONENTS]
        below, above = edges[edges.index(best) - 1], edges[edges.index(best) + 1]
        del gains[best]
        gains |= _gains(counts, below, best, candidates) | _gains(counts, best, above, candidates)
    return boundaries


def _gains(counts: NDArray[np.int64], low: int, high: int, candidates: list[int]) -> dict[int, float]:
    """How many bits it saves to split the bucket of exponents `low` to `high` in two, by the new boundary."""
    whole = _entropy_bits(counts[low:high].sum(0))
    return {
        boundary: whole - _entropy_bits(counts[low:boundary].sum(0)) - _entropy_bits(counts[boundary:high].sum(0))
        for boundary in candidates
        if low < boundary < high
    }


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    """Bits that an ideal code takes for all the symbols that were counted."""
    counts = counts[counts > 0]
    total = counts.sum()
    return float(total * np.log2(total) - (counts * np.log2(counts)).sum()) if total else 0.0


def sort_into_buckets(folded: Bits, exponents: Exponents, boundaries: list[int]) -> Bits:
    """The differences bucket by bucket, in their order within each."""
    if not boundaries:
        return folded
    result: Bits = np.empty_like(folded)
    _move(folded, result, exponents, boundaries, into_buckets=True)
    return result


def restore_order(bucketed: Bits, exponents: Exponents, boundaries: list[int]) -> Bits:
    """The differences that `sort_into_buckets` was given."""
    if not boundaries:
        return bucketed
    result: Bits = np.empty_like(bucketed)
    _move(bucketed, result, exponents, boundaries, into_buckets=False)
    return result


def _move(source: Bits, result: Bits, exponents: Exponents, boundaries: list[int], *, into_buckets: bool) -> None:
    edges = [0, *boundaries, NUM_EXPONENTS]
    positions = [0, *(int(np.count_nonzero(exponents < boundary)) for boundary in boundaries)]
    for start in range(0, len(source), BLOCK):
        block, in_frame_order = exponents[start : start + BLOCK], slice(start, start + BLOCK)
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            # One comparison does for both ends: what lies below `low` wraps round to a large number.
            indices = np.flatnonzero(block - np.uint8(low) < high - low)
            in_bucket = slice(positions[i], positions[i] + len(indices))
            positions[i] += len(indices)
            if into_buckets:
                np.take(source[in_frame_order], indices, out=result[in_bucket])
            else:
                result[in_frame_order][indices] = source[in_bucket]
