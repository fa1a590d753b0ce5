"""Packed files (gzip, Zstandard), unpacked in constant memory and within a limit.

A few bytes can stand for any number: 4 bytes of a Zstandard frame are a block of 128 KiB. So no call takes more input
than fits memory when unpacked, and a file that grows beyond all that text does is left where that shows.
"""

import gzip
import zlib
from collections.abc import Callable
from typing import IO

from vicuna.errors import require

MAX_RATIO = 1_000  # of what is unpacked to what was packed; text of a chat comes to 100 at the most
FREE_BYTES = 64 << 20  # unpacked, before the ratio is looked at
MAX_WINDOW_BYTES = 128 << 20  # that a Zstandard frame may ask for
ZSTANDARD_FEED_BYTES = 1 << 10  # of a frame in one step: at most 256 blocks, of 32 MiB in all
GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how such files begin

Read = Callable[[int], bytes]


class UnpackError(Exception):
    """The packed bytes are damaged, cut short, or too many when unpacked."""


def reader_of(file: IO[bytes]) -> Read:
    """How to read a file that may be packed: a function that returns the next bytes, at most as many as asked for.

    Args:
        file: at its beginning, and seekable. What is neither gzip nor Zstandard is read as it is.

    Raises, when called:
        UnpackError: it cannot be unpacked, or is not worth it.
    """
    head = file.read(len(ZSTANDARD))
    file.seek(0)
    if head.startswith(GZIP):
        return _limited(file, _gzip_reader(file))
    if head == ZSTANDARD:
        return _limited(file, _ZstandardReader(file).read)
    return file.read


def _limited(file: IO[bytes], read: Read) -> Read:
    num_unpacked = 0

    def read_within(size: int) -> bytes:
        nonlocal num_unpacked
        data = read(size)
        num_unpacked += len(data)
        if num_unpacked > max(FREE_BYTES, MAX_RATIO * file.tell()):
            raise UnpackError(f"it unpacks to more than {MAX_RATIO:,} times its size, which is no text")
        return data

    return read_within


def _gzip_reader(file: IO[bytes]) -> Read:
    unpacked = gzip.GzipFile(fileobj=file)

    def read(size: int) -> bytes:
        try:
            return unpacked.read1(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnpackError(str(error)) from None

    return read


class _ZstandardReader:
    """Unpacks frame after frame. (The library's own reader accepts a file that was cut short.)"""

    def __init__(self, file: IO[bytes]) -> None:
        zstandard = require("zstandard", "data")
        self._make = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj
        self._error: type[Exception] = zstandard.ZstdError
        self._file, self._frame, self._is_inside = file, self._make(), False
        self._unpacked, self._position = b"", 0

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""
        while self._position == len(self._unpacked):
            if not (packed := self._next_packed()):
                return b""
            try:
                self._unpacked, self._position = self._frame.decompress(packed), 0
            except self._error as error:
                raise UnpackError(" ".join(str(error).split())) from None
        start = self._position
        self._position = min(len(self._unpacked), start + size)
        return self._unpacked[start : self._position]

    def _next_packed(self) -> bytes:
        """The next bytes of a frame, b"" at the end of the file."""
        packed = b""
        if self._frame.eof:
            packed = self._frame.unused_data
            self._frame, self._is_inside = self._make(), False
        packed = packed or self._file.read(ZSTANDARD_FEED_BYTES)
        if not packed and self._is_inside:
            raise UnpackError("its last frame is cut short")
        self._is_inside = bool(packed)
        return packed
