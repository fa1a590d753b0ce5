"""Input files to raw records: the bytes of each record, not parsed, in bounded memory.

Files, folders and patterns become one list in a canonical order, so that the result does not depend on the shell. Then
each file is cut into its records: a JSON array between its values, JSON lines at their ends, parquet row by row; .gz
and .zst are unpacked on the way. What cannot be cut becomes a raw record with a problem instead of data.
"""

import codecs
import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vicuna.data.read.arrays import MAX_RECORD_BYTES, TOO_LARGE, ArrayReader, BrokenArrayError
from vicuna.data.read.tables import PARQUET, TableError, table_rows
from vicuna.errors import VicunaError
from vicuna.io.files import sha256_file
from vicuna.io.unpack import UnpackError, reader_of

ENDINGS = (".json", ".jsonl", ".ndjson", ".parquet")
COMPRESSED_ENDINGS = (".gz", ".zst")
MAX_LINES_WITHOUT_RECORD = 100  # at the start of a file; then the rest is not read
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """An input file. `modified_ns`: its modification time, in nanoseconds."""

    path: Path
    size_bytes: int
    modified_ns: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class RawRecord:
    """One record as its file has it.

    Attributes:
        file: the name of the file.
        number: which record of the file it is, counted from 1.
        place: where it stands, for a person: `line 12`, `byte 4096`, `row 3`.
        data: its JSON, empty where there is a problem.
        problem: why it cannot be read.
    """

    file: str
    number: int
    place: str
    data: bytes = b""
    problem: str | None = None


def stem(name: str) -> str:
    """A file's name without its known endings: `a` for `a.jsonl.gz`."""
    for endings in (COMPRESSED_ENDINGS, ENDINGS):
        for ending in endings:
            name = name.removesuffix(ending)
    return name


def find_sources(inputs: tuple[Path, ...], avoid: tuple[Path, ...] = ()) -> list[Source]:
    """The files that the inputs name, each once, ordered by name and then by content.

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
        endings = ", ".join(ENDINGS)
        raise VicunaError(f"{given} holds no file to read ({endings}; .gz and .zst of them); name the files themselves")
    return files


def _is_collection(path: Path) -> bool:
    name = path.name
    for ending in COMPRESSED_ENDINGS:
        name = name.removesuffix(ending)
    return name.endswith(ENDINGS) and not any(part.startswith(".") for part in path.parts)


def raw_records(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[RawRecord]:
    """The records of a file, in its order.

    Args:
        progress: called from time to time with the number of bytes of the file, as it lies on the disk, read so far.
    """
    name = path.name
    number = 0
    try:
        for number, (place, data, problem) in enumerate(_cut(path, progress), 1):
            yield RawRecord(name, number, place, data, problem)
    except (UnpackError, TableError) as error:
        yield RawRecord(name, number + 1, "the end of what can be unpacked", problem=f"the file is damaged ({error})")


CutRecords = Iterator[tuple[str, bytes, str | None]]


def _cut(path: Path, progress: Callable[[int], None]) -> CutRecords:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == PARQUET:
            yield from table_rows(file, path, progress)
            return
        unpack = reader_of(file)
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
            yield from _values(ArrayReader(beginning, read, offset - len(beginning)))
        else:
            yield from _lines(beginning, read, num_lines)
    progress(path.stat().st_size)


def _values(reader: ArrayReader) -> CutRecords:
    """The values of a JSON array; where its syntax is broken, a last one with the problem."""
    try:
        while (start := reader.next_value()) is not None:
            data = reader.value()
            yield f"byte {start}", data, None if data else TOO_LARGE
    except BrokenArrayError as error:
        yield f"byte {error.place}", b"", f"the JSON array breaks here ({error}); what follows was not read"


def _lines(beginning: bytes, read: Callable[[], bytes], number: int) -> CutRecords:
    """JSON lines without the empty ones. `number`: how many lines were read before."""
    num_without_record = 0
    has_record = False
    for line in _split(beginning, read):
        number += 1
        if line is not None and not (line := line.strip()):
            continue
        yield f"line {number}", line or b"", None if line else TOO_LARGE
        if not has_record:
            has_record = line is not None and line[:1] == b"{" and line[-1:] == b"}"
            num_without_record += 1
            if not has_record and num_without_record == MAX_LINES_WITHOUT_RECORD:
                yield f"line {number + 1}", b"", "the lines so far were no records; the rest of the file was not read"
                return


def _split(beginning: bytes, read: Callable[[], bytes]) -> Iterator[bytes | None]:
    """All lines; None for one that is too large."""
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
