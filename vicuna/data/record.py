"""Files of any known shape to records, one after the other: memory does not grow with the file.

A JSON array (ShareGPT's own form) or JSON lines; each record in ShareGPT, OpenAI or Alpaca shape. A record that cannot
be read is set aside with its place and the reason, a file that cannot be read is an error. `pipeline` comes next.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import RecordError, from_record
from vicuna.data.step import Record, Shape, excerpt
from vicuna.errors import VicunaError

CHUNK_BYTES = 1 << 20
SPACE = " \t\r\n"


@dataclass(frozen=True)
class Malformed:
    """Something in a file that is no record: where it stands, why, and how it begins."""

    id: str
    source: str
    reason: str


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """The records of a file, in its order.

    Raises:
        VicunaError: the file is missing, empty, a folder, not UTF-8, or neither a JSON array nor JSON lines.
    """
    values = _array_values(path) if _first_character(path) == "[" else _line_values(path)
    for number, value in enumerate(values, 1):
        source, fallback = f"{path.name}:{number}", f"{path.stem}-{number:06d}"
        if isinstance(value, Malformed):
            yield value
            continue
        try:
            conversation = from_record(value)
        except RecordError as error:
            given = value.get("id") if isinstance(value, dict) else None
            identifier = str(given) if isinstance(given, str | int) else fallback
            shown = excerpt(json.dumps(value, ensure_ascii=False))
            yield Malformed(_utf8(identifier), source, _utf8(f"{error}: {shown}"))
            continue
        identifier = _utf8(conversation.id) or fallback
        original = conversation.extra.pop("original_id", identifier)
        yield Record(
            id=identifier,
            messages=conversation.messages,
            source=source,
            original_id=original if isinstance(original, str) else identifier,
            shape=_shape(value),
            turns=tuple(range(len(conversation.messages))),
            extra=_plain({key: value for key, value in conversation.extra.items() if key != "num_tokens"}),
        )


def _shape(value: dict[str, Any]) -> Shape:
    return "sharegpt" if "conversations" in value else "messages" if "messages" in value else "alpaca"


def _utf8(text: str) -> str:
    """Without the lone surrogates that JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(extra: dict[str, Any]) -> dict[str, Any]:
    """The keys that we do not know, fit for a UTF-8 file."""
    kept: dict[str, Any] = json.loads(_utf8(json.dumps(extra, ensure_ascii=False))) if extra else {}
    return kept


def _first_character(path: Path) -> str:
    """The first character that is not space.

    Raises:
        VicunaError: there is none, or no such file.
    """
    if path.is_dir():
        raise VicunaError(f"{path} is a folder; name the JSON or JSON lines files in it")
    try:
        with path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            while chunk := file.read(CHUNK_BYTES):
                if stripped := chunk.lstrip():
                    return stripped[:1].decode("latin-1")
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    raise VicunaError(f"{path} is empty; give a JSON array or JSON lines of conversations")


def _line_values(path: Path) -> Iterator[Any]:
    """The values of JSON lines. The first must be good, or the file is none; a bad one later is set aside."""
    number = 0
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            if line_number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            number += 1
            try:
                yield json.loads(line.decode("utf-8"))
                continue
            except UnicodeDecodeError as error:
                reason = f"byte {error.start} is not UTF-8"
            except (ValueError, RecursionError) as error:
                reason = f"not JSON ({error})"
            if number == 1:
                raise VicunaError(
                    f"{path}:{line_number}: {reason}; the file must be a JSON array or JSON lines (one object a line)"
                )
            shown = excerpt(line.decode("utf-8", "replace").strip())
            yield Malformed(
                f"{path.stem}-{number:06d}", f"{path.name}:{number}", f"line {line_number}: {reason}: {shown}"
            )


def _array_values(path: Path) -> Iterator[Any]:
    """The values of a JSON array, each read as soon as it is whole.

    Raises:
        VicunaError: not UTF-8, or not a JSON array to its end; the message has the place in the file.
    """
    window = _Window(path)
    try:
        window.skip_space()
        window.position += 1  # the bracket
        is_first = True
        while (character := window.skip_space()) != "]":
            if not is_first:
                if character != ",":
                    raise window.error("a comma or the closing ] is missing")
                window.position += 1
                window.skip_space()
            yield window.value()
            is_first = False
        window.position += 1
        if window.skip_space():
            raise window.error("there is more text after the closing ]")
    finally:
        window.close()


class _Window:
    """The part of a text file that is in memory: from the value being read to as far as was needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb")
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.json = json.JSONDecoder()
        self.text, self.position = "", 0
        self.dropped, self.bytes_read = 0, 0  # characters before `text`; bytes read of the file
        self.is_at_end = False

    def close(self) -> None:
        self.file.close()

    def error(self, reason: object) -> VicunaError:
        return VicunaError(f"{self.path}: not JSON at character {self.dropped + self.position + 1} ({reason})")

    def fill(self, size: int) -> None:
        """Read `size` bytes more."""
        chunk = self.file.read(size)
        self.is_at_end = not chunk
        pending = len(self.decode.getstate()[0])
        try:
            more = self.decode.decode(chunk, final=self.is_at_end)
        except UnicodeDecodeError as error:
            place = self.bytes_read - pending + error.start
            raise VicunaError(f"{self.path}: byte {place} is not UTF-8; convert the file to UTF-8") from None
        self.bytes_read += len(chunk)
        self.dropped += self.position
        self.text, self.position = self.text[self.position :] + more, 0

    def skip_space(self) -> str:
        """The next character that is not space; "" at the end of the file."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in SPACE:
                    return self.text[self.position]
                self.position += 1
            if self.is_at_end:
                return ""
            self.fill(CHUNK_BYTES)

    def value(self) -> Any:
        """The value that begins here."""
        size = CHUNK_BYTES
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
            except (ValueError, RecursionError) as error:
                if self.is_at_end or not isinstance(error, json.JSONDecodeError):
                    reason = "nested too deep" if isinstance(error, RecursionError) else getattr(error, "msg", error)
                    self.position = getattr(error, "pos", self.position)
                    raise self.error(reason) from None
            else:
                # A number at the edge of the window may go on beyond it.
                if end < len(self.text) or self.is_at_end:
                    self.position = end
                    return value
            self.fill(size)
            size *= 2  # so that a large value costs no more than twice its size to read
