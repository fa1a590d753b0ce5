"""A JSON lines file of paid results under keys: what is in it is not paid again.

Between the runs of `answer` and `judge` and the disk. A result is on the disk before it counts as done, a line that a
kill cut short is removed when the file is opened, and one run at a time may write.
"""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from vicuna.errors import VicunaError
from vicuna.io.files import check_is_file, open_descriptor
from vicuna.io.jsonl import JsonObject, append_jsonl, read_jsonl
from vicuna.io.locks import lock_descriptor
from vicuna.io.log import warning


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

    Attributes:
        records: by key.

    Raises:
        VicunaError: another run holds the file, it has rows of another kind (another program's file) or rows that were
            changed by hand, or it is a folder or a device.
    """

    def __init__(self, path: Path, *, fields: Sequence[str], from_row: Callable[[JsonObject], R]) -> None:
        self.path, self._fields, self._from_row = path, fields, from_row
        self.records: dict[str, R] = {}
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        check_is_file(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._is_new = not self.path.exists()
        self._descriptor = open_descriptor(self.path, "r+b")
        try:
            self._lock()
            self._cut_torn_line()
            for number, row in enumerate(read_jsonl(self.path), 1):
                record = self._read(row, number)
                self.records[record.key] = record
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
            self.records[record.key] = record

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

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        if not content or content.endswith(b"\n"):
            return
        whole = content.rfind(b"\n") + 1
        try:
            json.loads(content[whole:])  # only the line's end is missing: its row was paid for, so it stays
        except ValueError:
            warning(f"{self.path}: a crash cut the last line short; its {len(content) - whole} bytes are dropped")
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
