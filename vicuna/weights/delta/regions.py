"""A `.vdelta` file while it is written: one region for each tensor, of frames (exact) or corrections (additive).

`makers` writes such files and `restore` reads them; `layout` has their format.
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.io.files import open_in_folder
from vicuna.weights.files.shard_writer import read_region
from vicuna.weights.files.unfinished import UnfinishedFolder


class RegionFile:
    """Appends regions to a file that begins with `preamble`, and hashes them. Use as a context manager.

    Attributes:
        position: the end of the last complete region; what an earlier run wrote may lie behind it.
    """

    def __init__(self, unfinished: UnfinishedFolder, name: str, preamble: bytes) -> None:
        path: Path = unfinished.folder / name
        self._file = open_in_folder(path, "r+b")
        if self._file.read(len(preamble)) != preamble:
            unfinished.discard_rest()
            self._file.seek(0)
            self._file.truncate()
            self._file.write(preamble)
        self.position = len(preamble)
        self._whole = hashlib.sha256(preamble)

    @property
    def sha256(self) -> str:
        """Hash of the file up to `position`."""
        return self._whole.hexdigest()

    def begin(self) -> None:
        """Begin a region at `position`, and cut off what an earlier run left there."""
        self._file.seek(self.position)
        self._file.truncate()
        self._start, self._region = self.position, hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append to the region."""
        self._file.write(data)
        self._region.update(data)
        self._whole.update(data)
        self.position += len(data)

    def end(self) -> tuple[int, int, str]:
        """Offset, size and hash of the region, which is complete."""
        self._file.flush()
        return self._start, self.position - self._start, self._region.hexdigest()

    def reuse(self, offset: int, size: int, sha256: str | None) -> bool:
        """Keep the region that an earlier run wrote at `position`, if it has this hash.

        Returns:
            Whether it is kept.
        """
        region, whole = hashlib.sha256(), self._whole.copy()
        for chunk in read_region(self._file, self.position, size):
            region.update(chunk)
            whole.update(chunk)
        if offset != self.position or region.hexdigest() != sha256:
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
