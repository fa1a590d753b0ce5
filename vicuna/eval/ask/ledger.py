"""A JSON lines file of paid results under keys: what is in it is not paid again.

Between the runs of `answer` and `judge` and the disk. A result is on the disk before it counts as done, a line that a
kill cut short is removed when the file is opened, and one run at a time may write.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from vicuna.errors import VicunaError
from vicuna.eval.rows import MAX_ROW_BYTES, read_rows
from vicuna.io.files import check_is_file, open_descriptor
from vicuna.io.jsonl import JsonObject, append_jsonl, parse_line
from vicuna.io.locks import lock_descriptor
from vicuna.io.log import warning

BLOCK_BYTES = 1 << 16
ROW_BEGIN = b'{"key": "'  # how `format_line` writes each of our rows


class Record(Protocol):
    """A result that can be kept."""

    @property
    def key(self) -> str:
        """The hash of everything that the result depends on."""

    def to_row(self) -> JsonObject:
        """The line of the file, `key` among its fields."""


R = TypeVar("R", bound=Record)


class Ledger(Generic[R]):
    """The records of one output file. Use as a context manager; it holds the file's lock.

    Args:
        fields: what every row must have besides its key.
        from_row: the record in a row; raises a VicunaError for a row that the program cannot have written.
        light: what of a record stays in memory; its texts are on the disk.

    Attributes:
        records: by key.

    Raises:
        VicunaError: another run holds the file, it has rows of another kind (another program's file) or rows that were
            changed by hand, or it is a folder or a device.
    """

    def __init__(
        self,
        path: Path,
        *,
        fields: Sequence[str],
        from_row: Callable[[JsonObject], R],
        light: Callable[[R], R] = lambda record: record,
    ) -> None:
        self.path, self._fields, self._from_row, self._light = path, fields, from_row, light
        self.records: dict[str, R] = {}
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        check_is_file(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._is_new = not self.path.exists()
        self._descriptor = open_descriptor(self.path, "r+b")
        try:
            self._lock()
            size = os.fstat(self._descriptor).st_size
            end = self._end_of_whole_lines(size)
            number = 0
            for number, _, row in read_rows(self.path, end=end):
                self._keep(self._read(row, number))
            if end < size:
                self._read_torn_line(end, size, number + 1)
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._is_new and os.fstat(self._descriptor).st_size == 0:
            self.path.unlink(missing_ok=True)  # nothing was done: leave nothing behind
        os.close(self._descriptor)

    async def append(self, record: R) -> None:
        """Add a record and return when it is on the disk; other calls go on meanwhile."""
        await asyncio.to_thread(self._append, record)

    def _append(self, record: R) -> None:
        with self._writing:
            append_jsonl(self.path, record.to_row())
            self._keep(record)

    def _keep(self, record: R) -> None:
        self.records[record.key] = self._light(record)

    def _lock(self) -> None:
        try:
            lock_descriptor(self._descriptor, wait=False)
        except BlockingIOError:
            message = f"{self.path}: another run is writing to it; wait for it or name another --output"
            raise VicunaError(message) from None

    def _read(self, row: JsonObject, number: int) -> R:
        if not isinstance(row.get("key"), str) or any(field not in row for field in self._fields):
            needed = ", ".join(("key", *self._fields))
            raise VicunaError(
                f"{self.path}: row {number} is of another kind ({needed} expected); name another --output"
            )
        try:
            return self._from_row(row)
        except VicunaError as error:
            raise VicunaError(f"{self.path}: a row was changed by hand ({error}); name another --output") from None

    def _end_of_whole_lines(self, size: int) -> int:
        """The byte after the last line end."""
        end = size
        while end:
            start = max(0, end - BLOCK_BYTES)
            if (place := os.pread(self._descriptor, end - start, start).rfind(b"\n")) >= 0:
                return start + place + 1
            end = start
        return 0

    def _read_torn_line(self, start: int, size: int, number: int) -> None:
        """Keep a last line that lacks only its end, since it was paid for; drop what a crash cut short.

        Raises:
            VicunaError: it is no beginning of a row of ours, so the file is somebody else's and stays as it is.
        """
        line = os.pread(self._descriptor, min(size - start, MAX_ROW_BYTES + 1), start)
        try:
            row = parse_line(line, f"{self.path}: row {number}")
        except VicunaError:
            if len(line) > MAX_ROW_BYTES or not line.startswith(ROW_BEGIN[: len(line)]):
                message = f"{self.path}: its last line is no row of ours; name another --output"
                raise VicunaError(message) from None
            warning(f"{self.path}: a crash cut the last line short; its {size - start} bytes are dropped")
            os.ftruncate(self._descriptor, start)
            os.fsync(self._descriptor)
        else:
            self._keep(self._read(row, number))
