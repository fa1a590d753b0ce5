"""One frame of an exact delta: a run of numbers as its difference from the base's, compressed without loss.

Called by `delta` with at most 4 MiB at a time. Floating point subtraction rounds, so the bit patterns are subtracted
as integers instead: a pattern is first mapped to an unsigned integer in the order of the numbers it stands for
(negative patterns are inverted, positive ones get the top bit set), the two integers are subtracted modulo 2^width,
and the signed difference is folded to a small unsigned one (0, -1, 1, -2 become 0, 1, 2, 3). A fine-tuned weight lies
close to its base, so the high bytes are nearly all zero; stored plane by plane, zstd level 1 packs them well. On real
fine-tunes this is smaller than XOR or a compressed additive delta, and every NaN, infinity and minus zero survives.
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vicuna.errors import require
from vicuna.weights.shard import ELEMENT_BYTES

Bits = NDArray[Any]  # of an unsigned type

STORED, PLANES, DIFFERENCE = 0, 1, 2  # how a frame's payload reads: the bytes, their planes in zstd, the difference
BLOCK = 1 << 16  # numbers worked on at a time, so that they stay in the processor's cache
ZSTD_LEVEL = 1  # smaller here than level 3, and faster
NUM_THREADS = min(4, os.cpu_count() or 1)

Job = TypeVar("Job")
Result = TypeVar("Result")


def encode_frame(target: bytes, base: bytes | None, dtype: str) -> tuple[int, bytes]:
    """Pack a run of numbers.

    Args:
        target: the run's little-endian bytes.
        base: the base's bytes for the same numbers in the same dtype (one of FLOATS); None to store without a base.
        dtype: safetensors name of the dtype.

    Returns:
        How the payload reads (STORED, PLANES or DIFFERENCE), and the payload.
    """
    zstandard = require("zstandard", "export")
    planes = to_planes(as_bits(target, dtype), None if base is None else as_bits(base, dtype))
    packed: bytes = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(planes)
    if len(packed) >= len(target):
        return STORED, target
    return (PLANES if base is None else DIFFERENCE), packed


def decode_frame(kind: int, payload: bytes, base: bytes | None, dtype: str, size_bytes: int) -> bytes:
    """The run of numbers that `encode_frame` packed: `size_bytes` bytes.

    Raises:
        ValueError: the payload is damaged.
    """
    zstandard = require("zstandard", "export")
    if kind == STORED:
        if len(payload) != size_bytes:
            raise ValueError(f"{len(payload)} bytes instead of {size_bytes}")
        return payload
    if kind not in (PLANES, DIFFERENCE) or (kind == DIFFERENCE and base is None):
        raise ValueError(f"frame of kind {kind}")
    try:
        if zstandard.get_frame_parameters(payload).content_size != size_bytes:
            raise ValueError("a frame of another size")
        planes = zstandard.ZstdDecompressor().decompress(payload, max_output_size=size_bytes)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    base_bits = as_bits(base, dtype) if kind == DIFFERENCE and base is not None else None
    return from_planes(planes, ELEMENT_BYTES[dtype], base_bits).tobytes()


def cast(data: bytes, source: str, target: str) -> bytes:
    """Numbers of one of FLOATS, or F64, in one of FLOATS, the same on every machine.

    Rounds to nearest, ties to even; too large becomes infinity. Every NaN becomes the quiet NaN of its sign, because
    processors disagree about what else a NaN carries over.
    """
    if source == target:
        return data
    if source == "BF16":
        numbers = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[source])
    is_nan = np.isnan(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        if target == "BF16":
            bits = numbers.astype("<f4").view("<u4")
            bits = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
        elif target == "F16":
            bits = numbers.astype("<f2").view("<u2")
        else:
            bits = numbers.astype("<f4").view("<u4")
    quiet = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000}[target]
    sign = np.signbit(numbers).astype(bits.dtype) << (8 * bits.itemsize - 1)
    result: bytes = np.where(is_nan, quiet | sign, bits).astype(bits.dtype).tobytes()
    return result


def as_bits(data: bytes, dtype: str) -> Bits:
    bits: Bits = np.frombuffer(data, f"<u{ELEMENT_BYTES[dtype]}")
    return bits


def _sign_mask(bits: Bits) -> Bits:
    """All ones where the top bit is set, the top bit alone elsewhere."""
    top = 8 * bits.itemsize - 1
    mask: Bits = (bits.view(f"<i{bits.itemsize}") >> top).view(bits.dtype)
    mask |= bits.dtype.type(1 << top)
    return mask


def ordered(bits: Bits) -> Bits:
    """Bit patterns as integers in the order of their numbers; a bijection."""
    return bits ^ _sign_mask(bits)


def unordered(ordered: Bits) -> Bits:
    return ordered ^ _sign_mask(~ordered)


def fold(difference: Bits) -> Bits:
    """Signed differences 0, -1, 1, -2 .. (modulo 2^width) as 0, 1, 2, 3 .."""
    signs: Bits = (difference.view(f"<i{difference.itemsize}") >> (8 * difference.itemsize - 1)).view(difference.dtype)
    return (difference << 1) ^ signs


def unfold(folded: Bits) -> Bits:
    return (folded >> 1) ^ -(folded & 1)


def to_planes(bits: Bits, base: Bits | None = None) -> bytes:
    """All lowest bytes, then all second ones, and so on: of the numbers, or of their folded differences to `base`."""
    planes = np.empty((bits.itemsize, len(bits)), "u1")
    for start in range(0, len(bits), BLOCK):
        part = slice(start, start + BLOCK)
        block = bits[part] if base is None else fold(ordered(bits[part]) - ordered(base[part]))
        for i in range(bits.itemsize):  # shifts are eight times as fast here as a transposed copy of the bytes
            planes[i, part] = block >> 8 * i
    return planes.tobytes()


def from_planes(planes: bytes, width: int, base: Bits | None = None) -> Bits:
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
        if base is not None:
            block[:] = unordered(ordered(base[part]) + unfold(block))
    return bits


def in_order(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """`map` on a few threads (numpy and zstd let go of the interpreter), never more than a few jobs ahead."""
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > NUM_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
