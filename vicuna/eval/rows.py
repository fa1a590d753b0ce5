"""The lines of the evaluation's files (questions, answers, judgments): one at a time, each with its place, bounded.

Below `questions`, `answer`, `judging` and `reporting`. A file may be somebody else's: whatever is in a line, what comes
out is a JSON object or an error of one line that names file and line.
"""

import codecs
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject, parse_line

# The longest line that is read. The longest that we write: a prompt and two replies at their own limits, escaped.
MAX_ROW_BYTES = 64 << 20
MAX_ID_CHARS = 500
MAX_NAME_CHARS = 500


class Place(NamedTuple):
    """Where a row stands: the number of its file among those given, its first byte, its size."""

    file: int
    start: int
    size: int


class Row(NamedTuple):
    """A row and its number from 1, empty lines not counted."""

    number: int
    place: Place
    value: JsonObject


def read_rows(path: Path, *, file: int = 0, end: int | None = None) -> Iterator[Row]:
    """The rows of a JSON lines file, one by one, up to the byte `end`; empty lines are skipped.

    Raises:
        VicunaError: the file is missing, or a line is longer than `MAX_ROW_BYTES`, not UTF-8 or not a JSON object.
    """
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    with opened:
        start = number = line_number = 0
        while (end is None or start < end) and (line := opened.readline(MAX_ROW_BYTES + 1)):
            line_number += 1
            if len(line) > MAX_ROW_BYTES:
                raise VicunaError(
                    f"{path}:{line_number}: a line of more than {MAX_ROW_BYTES:,} bytes, the limit; correct the file"
                )
            if (content := line.removeprefix(codecs.BOM_UTF8) if line_number == 1 else line).strip():
                number += 1
                yield Row(number, Place(file, start, len(line)), parse_line(content, f"{path}:{line_number}"))
            start += len(line)


class RowReader:
    """Reads rows again that `read_rows` found in some files; one file is open at a time. Use as a context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._opened: BinaryIO | None = None
        self._number = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened, self._number = None, -1

    def read(self, place: Place) -> JsonObject:
        """The row at a place.

        Raises:
            VicunaError: the file was changed since.
        """
        path = self.paths[place.file]
        if self._opened is None or self._number != place.file:
            self.__exit__()
            self._opened, self._number = path.open("rb"), place.file
        self._opened.seek(place.start)
        line = self._opened.read(place.size)
        if len(line) < place.size:
            raise VicunaError(f"{path}: was changed while it was read; run the command again")
        return parse_line(line.removeprefix(codecs.BOM_UTF8), str(path))


def checked_id(value: object, place: str) -> int | str:
    """A question's id: a whole number or a text.

    Raises:
        VicunaError: it is neither, or too long; the message begins with `place`.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise VicunaError(f"{place}: question_id is {repr(value)[:60]}; it must be a number or a text")
    if isinstance(value, str) and len(value) > MAX_ID_CHARS:
        raise VicunaError(f"{place}: question_id has {len(value):,} characters, above the limit of {MAX_ID_CHARS}")
    if isinstance(value, int) and value.bit_length() > 63:
        raise VicunaError(f"{place}: question_id is a number of more than 63 bits; use a text")
    return value


def checked_name(value: str, what: str, place: str) -> str:
    """The name of a model, a judge or a category.

    Raises:
        VicunaError: it is too long to be one; the message begins with `place`.
    """
    if len(value) > MAX_NAME_CHARS:
        raise VicunaError(f"{place}: {what} has {len(value):,} characters, above the limit of {MAX_NAME_CHARS}")
    return value


def is_amount(value: object) -> bool:
    """Whether a value is a finite number from 0, as a count or a price is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 and math.isfinite(value)
