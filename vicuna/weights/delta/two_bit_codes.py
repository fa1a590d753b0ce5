"""Small differences in two bits each, four to a byte.

zstd's Huffman codes take at least one bit for a byte. Where most differences are 0, 1 or 2 they are therefore written
as two-bit codes; code 3 stands for all larger ones, which follow as byte planes, less 3. Called by `codec`.
"""

import numpy as np

from vicuna.weights.delta.bits import Bits, from_planes, to_planes
from vicuna.weights.files.tensors import Buffer

ESCAPE = 3  # the code of all differences from 3 on


def packed_bytes(count: int) -> int:
    """Size of the codes of `count` differences."""
    return -(-count // 4)


def pack(folded: Bits) -> Buffer:
    """The codes of folded differences, then the byte planes of those from `ESCAPE` on, less `ESCAPE`."""
    quarter = packed_bytes(len(folded))
    codes = np.zeros(4 * quarter, "u1")
    np.minimum(folded, ESCAPE, out=codes[: len(folded)], casting="unsafe")
    rows = codes.reshape(4, quarter)
    packed = rows[0] | rows[1] << 2 | rows[2] << 4 | rows[3] << 6
    return b"".join([packed.tobytes(), to_planes(folded[folded >= ESCAPE] - folded.dtype.type(ESCAPE))])


def unpack(data: Buffer, count: int, width: int) -> Bits:
    """The `count` differences of `width` bytes that `pack` was given.

    Raises:
        ValueError: the data is damaged.
    """
    quarter = packed_bytes(count)
    packed = np.frombuffer(data[:quarter], "u1")
    codes = np.empty((4, quarter), "u1")
    for i in range(4):
        codes[i] = packed >> 2 * i & ESCAPE
    folded: Bits = codes.reshape(-1)[:count].astype(f"<u{width}")
    escaped = np.flatnonzero(codes.reshape(-1)[:count] == ESCAPE)
    if len(data) - quarter != len(escaped) * width:
        raise ValueError("a frame of another size")
    folded[escaped] = from_planes(data[quarter:], width) + folded.dtype.type(ESCAPE)
    return folded
