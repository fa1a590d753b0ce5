"""A JSON lines file of paid work under keys: what is in it is never paid again.

Between the runs of `answer` and `judge` and the disk. A row is on the disk before it counts as done, a line that a
kill cut short is taken off when the file is opened, and one run at a time may write.
"""

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.errors import VicunaError
from vicuna.io.files import check_is_file
from vicuna.io.jsonl import JsonObject, append_jsonl, read_jsonl
from vicuna.io.locks import lock_descriptor
from vicuna.io.log import warning


class Ledger:
    """The rows of one output file. Use as a context manager; it holds the file's lock.

    Args:
        fields: what every row must have besides its key.

    Raises:
        VicunaError: another run holds the file, or it has rows of another kind (another program's file), or it is a
            folder or a device.
    """

    def __init__(self, path: Path, *, fields: Sequence[str]) -> None:
        self.path, self._fields = path, fields
        self.rows: dict[str, JsonObject] = {}
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        check_is_file(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._is_new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                lock_descriptor(self._descriptor, wait=False)
            except BlockingIOError:
                message = f"{self.path}: another run is writing to it; wait for it or name another --output"
                raise VicunaError(message) from None
            self._cut_torn_line()
            for number, row in enumerate(read_jsonl(self.path), 1):
                key = row.get("key")
                if not isinstance(key, str) or any(field not in row for field in self._fields):
                    needed = ", ".join(("key", *self._fields))
                    raise VicunaError(
                        f"{self.path}: row {number} is of another kind ({needed} expected); name another --output"
                    )
                self.rows[key] = row
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._is_new and os.fstat(self._descriptor).st_size == 0:
            self.path.unlink(missing_ok=True)  # nothing was done: leave nothing behind
        os.close(self._descriptor)

    async def append(self, row: JsonObject) -> None:
        """Add a row and return when it is on the disk; other calls go on meanwhile."""
        await asyncio.to_thread(self._append, row)

    def _append(self, row: JsonObject) -> None:
        with self._writing:
            append_jsonl(self.path, row)
            self.rows[row["key"]] = row

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
