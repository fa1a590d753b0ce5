"""One frame of an exact delta: consecutive numbers as their difference from the base's, compressed without loss.

Called by `makers` and `restore` with at most 2 MiB at a time. Floating point subtraction rounds, so the bit patterns
are subtracted as integers instead (`bits`): a pattern is first mapped to an unsigned integer in the order of the
numbers it stands for (negative patterns are inverted, positive ones get the top bit set), the two integers are
subtracted modulo 2^width, and the signed difference is folded to a small unsigned one (0, -1, 1, -2 become 0, 1, 2, 3).
A fine-tuned weight lies close to its base, so the high bytes are nearly all zero. Grouped by the magnitude of the base
(`magnitude_buckets`), and stored as byte planes, or as `two_bit_codes` where they are tiny, zstd level 1 packs them
well. On real fine-tunes this is smaller than XOR or a compressed additive delta, and every NaN, infinity and minus zero
survives.

A frame of kind DIFFERENCE begins with 1 byte that says how many boundaries there are between buckets, one byte for each
boundary, and 1 byte that says whether the rest, in zstd, is byte planes (0) or two-bit codes (1).
"""

import numpy as np

from vicuna.errors import require
from vicuna.weights.delta.bits import Bits, add_folded, as_bits, from_planes, subtract_folded, to_planes
from vicuna.weights.delta.magnitude_buckets import choose_boundaries, exponents_of, restore_order, sort_into_buckets
from vicuna.weights.delta.two_bit_codes import ESCAPE, pack, packed_bytes, unpack
from vicuna.weights.files.tensors import ELEMENT_BYTES, Buffer

STORED, PLANES, DIFFERENCE = 0, 1, 2  # how a frame's payload reads: the bytes, their planes in zstd, the difference
ZSTD_LEVEL = 1  # smaller here than level 3, and faster
MIN_SMALL = 0.4  # share of differences below ESCAPE from which on two-bit codes are smaller than planes


def encode_frame(target: bytes, base: Buffer | None, dtype: str) -> tuple[int, bytes]:
    """Compress consecutive numbers.

    Args:
        target: the numbers' little-endian bytes.
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
        exponents = exponents_of(base_bits, dtype)
        is_packed = bool(np.count_nonzero(folded < ESCAPE) > MIN_SMALL * len(folded))
        # Among large differences buckets would save 8% of the size for a third of the speed at which it is decoded.
        boundaries = choose_boundaries(exponents, folded) if is_packed else []
        bucketed = sort_into_buckets(folded, exponents, boundaries)
        data = compress(pack(bucketed) if is_packed else to_planes(bucketed))
        kind, payload = DIFFERENCE, bytes([len(boundaries), *boundaries, is_packed]) + data
    return (STORED, target) if len(payload) >= len(target) else (kind, payload)


def decode_frame(kind: int, payload: Buffer, base: Buffer | None, dtype: str, size_bytes: int) -> Buffer:
    """The `size_bytes` bytes of numbers that `encode_frame` was given.

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
        end = 1 + payload[0]
        boundaries, is_packed, data = list(payload[1:end]), bool(payload[end]), payload[end + 1 :]
        bucketed = _differences(data, size_bytes // width, width, is_packed=is_packed)
        base_bits = as_bits(base, dtype)
        folded = restore_order(bucketed, exponents_of(base_bits, dtype), boundaries) if boundaries else bucketed
        return add_folded(base_bits, folded).data.cast("B")
    raise ValueError(f"a frame of kind {kind} and {len(payload)} bytes")


def decompress(data: Buffer, max_bytes: int) -> bytes:
    """The bytes that zstd made `data` of, at most `max_bytes`.

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
    plain = decompress(data, count * width + (packed_bytes(count) if is_packed else 0))
    if is_packed:
        return unpack(plain, count, width)
    if len(plain) != count * width:
        raise ValueError("a frame of another size")
    return from_planes(plain, width)
