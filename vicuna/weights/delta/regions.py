"""A file of a delta that grows tensor by tensor: frames (exact) or corrections (additive), each tensor's part hashed.

Stands on `unfinished`; `make` writes such files and `apply` reads them.
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.weights.files.shard_writer import read_region
from vicuna.weights.files.unfinished import Work


class RegionFile:
    """Appends parts to a file that begins with `preamble`. Use as a context manager."""

    def __init__(self, work: Work, name: str, preamble: bytes) -> None:
        path: Path = work.folder / name
        path.touch()
        self._file = path.open("r+b")
        if self._file.read(len(preamble)) != preamble:
            work.forget()
            self._file.seek(0)
            self._file.truncate()
            self._file.write(preamble)
        self.position = len(preamble)
        self._whole = hashlib.sha256(preamble)

    @property
    def sha256(self) -> str:
        """Hash of the whole file so far."""
        return self._whole.hexdigest()

    def begin(self) -> None:
        """A new part begins here; what lies behind is of no use."""
        self._file.seek(self.position)
        self._file.truncate()
        self._start, self._part = self.position, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._part.update(data)
        self._whole.update(data)
        self.position += len(data)

    def end(self) -> tuple[int, int, str]:
        """Offset, size and hash of the part."""
        self._file.flush()
        return self._start, self.position - self._start, self._part.hexdigest()

    def reuse(self, offset: int, size: int, sha256: str | None) -> bool:
        """Does the next part lie here already, with this hash? Then it stays."""
        part, whole = hashlib.sha256(), self._whole.copy()
        for chunk in read_region(self._file, self.position, size):
            part.update(chunk)
            whole.update(chunk)
        if offset != self.position or part.hexdigest() != sha256:
            return False
        self._whole, self.position = whole, offset + size
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.truncate(self.position)
                self._file.flush()
                os.fsync(self._file.fileno())
