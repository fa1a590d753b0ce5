"""Input files to raw records: bytes cut at the right places, nothing parsed, memory bounded.

Files, folders and patterns become one list in a canonical order, so that nobody's shell decides on the result. Then
each file is cut into its records: a JSON array at the commas between its values, JSON lines at their ends, parquet row
by row; .gz and .zst on the way. What cannot be cut is a raw record with a problem instead of data. `record` parses
them, `batches` batches them.
"""

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vicuna.data.read.arrays import MAX_RECORD_BYTES, TOO_LARGE, Break, Window
from vicuna.errors import VicunaError, require
from vicuna.io.files import sha256_file

KINDS = (".json", ".jsonl", ".ndjson", ".parquet")
PACKINGS = (".gz", ".zst")
HOPELESS_LINES = 100  # a file that begins with this many lines of no JSON holds none
READ_BYTES = 1 << 20
PACKED_BYTES = 1 << 15
BATCH_ROWS = 64  # of parquet


@dataclass(frozen=True)
class Source:
    """An input file. `changed_ns` is when, in the file system's count."""

    path: Path
    size_bytes: int
    changed_ns: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Raw:
    """One record as its file has it.

    Attributes:
        file: the name of the file.
        number: which record of the file it is, counted from 1.
        place: where it stands, for a person: `line 12`, `byte 4096`, `row 3`.
        data: its JSON, or nothing where there is a problem.
        problem: why it cannot be read.
    """

    file: str
    number: int
    place: str
    data: bytes = b""
    problem: str | None = None


def stem(name: str) -> str:
    """A file's name without the endings that we know: `a.jsonl.gz` is `a`."""
    for endings in (PACKINGS, KINDS):
        for ending in endings:
            name = name.removesuffix(ending)
    return name


def find_sources(inputs: tuple[Path, ...], avoid: tuple[Path, ...] = ()) -> list[Source]:
    """The files that the inputs mean, each once, by name and then by content.

    Args:
        avoid: folders whose files are not taken when a folder or pattern finds them.

    Raises:
        VicunaError: an input is missing, a folder or pattern without any such file, or not a plain file.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        for path in _files_of(given, tuple(folder.resolve() for folder in avoid)):
            found.setdefault(path.resolve(), path)
    sources = [_source(path) for path in found.values()]
    return sorted(sources, key=lambda source: (os.fsencode(source.name), source.sha256, os.fsencode(source.path)))


def _source(path: Path) -> Source:
    status = path.stat()
    return Source(path, status.st_size, status.st_mtime_ns, sha256_file(path))


def _files_of(given: Path, avoid: tuple[Path, ...]) -> list[Path]:
    if given.is_file():
        return [given]
    if given.is_dir():
        if (given / "manifest.json").is_file() and (given / "repairs.jsonl").is_file():
            raise VicunaError(f"{given} is the result of a cleaning; name the file in it that you want")
        paths = [path for path in given.rglob("*") if _is_collection(path.relative_to(given))]
    elif given.exists():
        raise VicunaError(f"{given} is not a plain file; save what it gives in one first")
    elif glob.has_magic(str(given)):
        paths = [Path(name) for name in glob.glob(str(given), recursive=True)]
    else:
        raise VicunaError(f"{given}: no such file")
    files = [path for path in paths if path.is_file() and not any(map(path.resolve().is_relative_to, avoid))]
    if not files:
        endings = ", ".join(KINDS)
        raise VicunaError(f"{given} holds no file to read ({endings}; .gz and .zst of them); name the files themselves")
    return files


def _is_collection(path: Path) -> bool:
    name = path.name
    for ending in PACKINGS:
        name = name.removesuffix(ending)
    return name.endswith(KINDS) and not any(part.startswith(".") for part in path.parts)


def raw_records(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Raw]:
    """The records of a file, in its order.

    Args:
        progress: told now and then how far into the file, in bytes as it lies on the disk, the reading is.
    """
    name = path.name
    number = 0
    try:
        for number, (place, data, problem) in enumerate(_cut(path, progress), 1):
            yield Raw(name, number, place, data, problem)
    except (EOFError, zlib.error, gzip.BadGzipFile, _Damaged) as error:
        yield Raw(name, number + 1, "the end of what can be unpacked", problem=f"the file is damaged ({error})")


class _Damaged(Exception):
    """A packed or parquet file that does not hold what it says."""


Cut = Iterator[tuple[str, bytes, str | None]]


def _cut(path: Path, progress: Callable[[int], None]) -> Cut:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == b"PAR1":
            yield from _rows(file, path, progress)
            return
        unpack: Callable[[int], bytes] = file.read1
        if head[:2] == b"\x1f\x8b":
            unpack = gzip.GzipFile(fileobj=file).read1
        elif head == b"\x28\xb5\x2f\xfd":
            unpack = _Zstandard(file).read1
        offset = 0

        def read() -> bytes:
            nonlocal offset
            progress(file.tell())
            chunk = unpack(READ_BYTES)
            offset += len(chunk)
            return chunk

        beginning = read().removeprefix(codecs.BOM_UTF8)
        num_lines = 0
        while beginning and not beginning.strip():
            num_lines += beginning.count(b"\n")
            beginning = read()
        if not beginning:
            yield "the whole file", b"", "the file is empty"
        elif beginning.lstrip()[:1] == b"[":
            yield from _values(Window(beginning, read, offset - len(beginning)))
        else:
            yield from _lines(beginning, read, num_lines)
    progress(path.stat().st_size)


def _values(window: Window) -> Cut:
    """The values of a JSON array. Where it breaks, the records before are good, and the break is one that is not."""
    try:
        while (start := window.next_value()) is not None:
            data = window.value()
            yield f"byte {start}", data, None if data else TOO_LARGE
    except Break as error:
        yield f"byte {error.place}", b"", f"the JSON array breaks here ({error}); what follows was not read"


def _lines(beginning: bytes, read: Callable[[], bytes], number: int) -> Cut:
    """JSON lines; empty ones are skipped, and `number` were before."""
    num_hopeless = 0
    is_hopeful = False
    for line in _split(beginning, read):
        number += 1
        if line is not None and not (line := line.strip()):
            continue
        yield f"line {number}", line or b"", None if line else TOO_LARGE
        if not is_hopeful:
            is_hopeful = line is not None and line[:1] == b"{" and line[-1:] == b"}"
            num_hopeless += 1
            if not is_hopeful and num_hopeless == HOPELESS_LINES:
                yield f"line {number + 1}", b"", "the lines so far were no records; the rest of the file was not read"
                return


def _split(beginning: bytes, read: Callable[[], bytes]) -> Iterator[bytes | None]:
    """The lines; None for one that is too large to keep."""
    rest: list[bytes] = []
    size = 0
    chunk = beginning
    while chunk:
        first, *others = chunk.split(b"\n")
        size += len(first)
        if size <= MAX_RECORD_BYTES:
            rest.append(first)
        else:
            rest.clear()
        if others:
            yield b"".join(rest) if size <= MAX_RECORD_BYTES else None
            yield from others[:-1]
            rest, size = [others[-1]], len(others[-1])
        chunk = read()
    yield b"".join(rest) if size <= MAX_RECORD_BYTES else None


def _rows(file: IO[bytes], path: Path, progress: Callable[[int], None]) -> Cut:
    """The rows of a parquet file, each as the JSON it would have been."""
    parquet = require("pyarrow.parquet", "data")
    arrow = require("pyarrow", "data")
    size, number = path.stat().st_size, 0
    try:
        table = parquet.ParquetFile(file, buffer_size=READ_BYTES)
        total = max(1, table.metadata.num_rows)
        for batch in table.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", json.dumps(_filled(row), default=str).encode("ascii"), None
            progress(size * number // total)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _Damaged(" ".join(str(error).split())) from None
    if not number:
        yield "the whole file", b"", "the file is empty"


def _filled(row: Any) -> Any:
    """Without the keys that parquet fills with nothing because another row has them."""
    return {key: value for key, value in row.items() if value is not None}


class _Zstandard:
    """Unpacks frame after frame. (The library's own reader takes a file that was cut short for a whole one.)"""

    def __init__(self, file: IO[bytes]) -> None:
        zstandard = require("zstandard", "data")
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._error: type[Exception] = zstandard.ZstdError
        self._file, self._frame, self._is_inside = file, self._make(), False

    def read1(self, _: int) -> bytes:
        """Some bytes more, b"" at the end."""
        while True:
            packed = b""
            if self._frame.eof:
                packed = self._frame.unused_data
                self._frame, self._is_inside = self._make(), False
            packed = packed or self._file.read(PACKED_BYTES)
            if not packed:
                if self._is_inside:
                    raise _Damaged("its last frame is cut short")
                return b""
            self._is_inside = True
            try:
                unpacked: bytes = self._frame.decompress(packed)
            except self._error as error:
                raise _Damaged(" ".join(str(error).split())) from None
            if unpacked:
                return unpacked
