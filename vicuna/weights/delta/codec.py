"""One frame of an exact delta: a run of numbers as its difference from the base's, compressed without loss.

Called by `makers` and `restore` with at most 2 MiB at a time. Floating point subtraction rounds, so the bit patterns
are subtracted as integers instead (`bits`): a pattern is first mapped to an unsigned integer in the order of the
numbers it stands for (negative patterns are inverted, positive ones get the top bit set), the two integers are
subtracted modulo 2^width, and the signed difference is folded to a small unsigned one (0, -1, 1, -2 become 0, 1, 2, 3).
A fine-tuned weight lies close to its base, so the high bytes are nearly all zero. Sorted by what is to be expected
(`classes`), and stored plane by plane, or four to a byte where they are tiny, zstd level 1 packs them well. On real
fine-tunes this is smaller than XOR or a compressed additive delta, and every NaN, infinity and minus zero survives.

A frame of kind DIFFERENCE begins with 1 byte that says how many cuts there are between classes, one byte for each cut,
and 1 byte that says whether the rest, in zstd, is planes (0) or packed (1).
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from vicuna.errors import require
from vicuna.weights.delta.classes import LARGE, choose_cuts, exponents, pack, sort, unpack, unsort
from vicuna.weights.files.bits import Bits, add_folded, as_bits, from_planes, subtract_folded, to_planes
from vicuna.weights.files.tensors import ELEMENT_BYTES, Buffer

STORED, PLANES, DIFFERENCE = 0, 1, 2  # how a frame's payload reads: the bytes, their planes in zstd, the difference
ZSTD_LEVEL = 1  # smaller here than level 3, and faster
MIN_SMALL = 0.4  # share of differences 0, 1 and 2 from which on packing is smaller than planes
NUM_THREADS = min(4, os.cpu_count() or 1)

Job = TypeVar("Job")
Result = TypeVar("Result")


def encode_frame(target: bytes, base: Buffer | None, dtype: str) -> tuple[int, bytes]:
    """Pack a run of numbers.

    Args:
        target: the run's little-endian bytes.
        base: the base's bytes for the same numbers in the same dtype (one of FLOATS); None to store without a base.
        dtype: safetensors name of the dtype.

    Returns:
        How the payload reads (STORED, PLANES or DIFFERENCE), and the payload.
    """
    compress = require("zstandard", "export").ZstdCompressor(level=ZSTD_LEVEL).compress
    if base is None:
        kind, payload = PLANES, compress(to_planes(as_bits(target, dtype)))
    else:
        base_bits = as_bits(base, dtype)
        folded = subtract_folded(as_bits(target, dtype), base_bits)
        exponent = exponents(base_bits, dtype)
        is_packed = bool(np.count_nonzero(folded < LARGE) > MIN_SMALL * len(folded))
        # Among large differences classes would save 8% of the size for a third of the speed at which it is decoded.
        cuts = choose_cuts(exponent, folded) if is_packed else []
        by_class = sort(folded, exponent, cuts)
        data = compress(pack(by_class) if is_packed else to_planes(by_class))
        kind, payload = DIFFERENCE, bytes([len(cuts), *cuts, is_packed]) + data
    return (STORED, target) if len(payload) >= len(target) else (kind, payload)


def decode_frame(kind: int, payload: Buffer, base: Buffer | None, dtype: str, size_bytes: int) -> Buffer:
    """The run of numbers that `encode_frame` packed: `size_bytes` bytes.

    Raises:
        ValueError: the payload is damaged.
    """
    width = ELEMENT_BYTES[dtype]
    if kind == STORED and len(payload) == size_bytes:
        return payload
    if kind == PLANES:
        planes = decompress(payload, size_bytes)
        if len(planes) == size_bytes:
            return from_planes(planes, width).data.cast("B")
    if kind == DIFFERENCE and base is not None and len(payload) > 2 and len(payload) > 2 + payload[0]:
        cuts, is_packed, data = list(payload[1 : 1 + payload[0]]), payload[1 + payload[0]], payload[2 + payload[0] :]
        by_class = _differences(data, size_bytes // width, width, is_packed=bool(is_packed))
        base_bits = as_bits(base, dtype)
        folded = unsort(by_class, exponents(base_bits, dtype), cuts) if cuts else by_class
        return add_folded(base_bits, folded).data.cast("B")
    raise ValueError(f"a frame of kind {kind} and {len(payload)} bytes")


def decompress(data: Buffer, max_bytes: int) -> bytes:
    """What zstd made `data` of, at most `max_bytes`.

    Raises:
        ValueError: it is damaged or larger.
    """
    zstandard = require("zstandard", "export")
    try:
        if not 0 <= zstandard.get_frame_parameters(data).content_size <= max_bytes:
            raise ValueError("a frame of another size")
        result: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=max_bytes)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    return result


def _differences(data: Buffer, count: int, width: int, *, is_packed: bool) -> Bits:
    plain = decompress(data, count * width + (-(-count // 4) if is_packed else 0))
    if is_packed:
        return unpack(plain, count, width)
    if len(plain) != count * width:
        raise ValueError("a frame of another size")
    return from_planes(plain, width)


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
