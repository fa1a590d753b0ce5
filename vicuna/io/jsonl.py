"""JSON and JSON lines: errors with file, line and column; files written atomically, lines appended durably."""

import codecs
import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io.files import atomic_file, check_is_file, open_descriptor
from vicuna.io.secrets import json_value

JsonObject = dict[str, Any]


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        VicunaError: the file is missing, not UTF-8 or not JSON; the message has line and column.
    """
    try:
        return json.loads(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise VicunaError(f"{path}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        raise VicunaError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
        raise VicunaError(f"{path}: not JSON that can be read ({error})") from None


def write_json(path: Path | str, value: Any, *, follows_link: bool = True) -> None:
    """Write a value as indented JSON with sorted keys, atomically; `follows_link` as of `atomic_file`."""
    with atomic_file(path, follows_link=follows_link) as file:
        file.write(format_json(value, indent=2, sort_keys=True) + "\n")


def read_jsonl(path: Path | str) -> Iterator[JsonObject]:
    """The objects of a JSON lines file, one by one; empty lines are skipped.

    Raises:
        VicunaError: the file is missing, or a line is not UTF-8 or not a JSON object; the message has the line.
    """
    try:
        file = Path(path).open("rb")
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    with file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield parse_line(line, f"{path}:{number}")


def parse_line(line: bytes, place: str) -> JsonObject:
    """One JSON object.

    Raises:
        VicunaError: not UTF-8, not JSON or not an object; the message begins with `place`.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise VicunaError(f"{place}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        raise VicunaError(f"{place}: not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise VicunaError(f"{place}: not JSON that can be read ({error})") from None
    if not isinstance(value, dict):
        raise VicunaError(f"{place}: expected a JSON object, found {type(value).__name__}")
    return value


def format_line(value: JsonObject) -> str:
    """One line of a JSON lines file, newline included."""
    return format_json(value) + "\n"


def format_json(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON without escapes for letters; all escaped where one is half a surrogate pair, which UTF-8 cannot hold."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys, default=json_value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, sort_keys=sort_keys, default=json_value)
    return text


def write_jsonl(path: Path | str, values: Iterable[JsonObject], *, follows_link: bool = True) -> int:
    """Write objects atomically, one a line, and return their number; `follows_link` as of `atomic_file`."""
    count = 0
    with atomic_file(path, follows_link=follows_link) as file:
        for value in values:
            file.write(format_line(value))
            count += 1
    return count


def append_jsonl(path: Path | str, value: JsonObject) -> None:
    """Add one line with one write, and return when it is on the disk.

    A last line without its end, which a kill cut short, is ended first, so that the new one does not continue it. A
    line that the disk has no room for is removed again. One process at a time may append to a file.

    Raises:
        VicunaError: it is a folder, a device or a link.
    """
    check_is_file(path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = format_line(value).encode("utf-8")
    descriptor = open_descriptor(path, "a+b")
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            if os.write(descriptor, line) < len(line):  # how a disk says first that it is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            error.filename = str(path)
            raise
    finally:
        os.close(descriptor)
