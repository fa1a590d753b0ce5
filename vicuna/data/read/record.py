"""Raw records to records: JSON is parsed, its shape told, its keys sorted out.

ShareGPT, OpenAI and Alpaca shape. What is no record is `Malformed`: set aside with its place and the reason, while
the rest goes on. `sources` has cut the file before; `pipeline` comes next.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import RecordError, from_record
from vicuna.data.read.sources import Raw, raw_records, stem
from vicuna.data.step_kinds import Record, Shape, excerpt


@dataclass(frozen=True)
class Malformed:
    """Something in a file that is no record: where it stands, why, and how it begins."""

    id: str
    source: str
    reason: str


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """The records of a file, in its order."""
    return map(read_record, raw_records(path))


def read_record(raw: Raw) -> Record | Malformed:
    """The record that the bytes are."""
    source, fallback = f"{raw.file}:{raw.number}", f"{stem(raw.file)}-{raw.number:06d}"
    try:
        value = _value(raw)
    except ValueError as error:
        shown = excerpt(raw.data.decode("utf-8", "replace"))
        return Malformed(fallback, source, f"{raw.place}: {error}{': ' if shown else ''}{shown}")
    try:
        conversation = from_record(value)
    except RecordError as error:
        given = value.get("id") if isinstance(value, dict) else None
        identifier = str(given) if isinstance(given, str | int) else fallback
        shown = excerpt(json.dumps(value, ensure_ascii=False))
        return Malformed(_utf8(identifier), source, _utf8(f"{raw.place}: {error}: {shown}"))
    identifier = _utf8(conversation.id) or fallback
    original = conversation.extra.pop("original_id", identifier)
    return Record(
        id=identifier,
        messages=conversation.messages,
        source=source,
        original_id=_utf8(original) if isinstance(original, str) else identifier,
        shape=_shape(value),
        turns=tuple(range(len(conversation.messages))),
        extra=_plain({key: value for key, value in conversation.extra.items() if key != "num_tokens"}),
    )


def _value(raw: Raw) -> Any:
    """The JSON value.

    Raises:
        ValueError: there is none; the message says why.
    """
    if raw.problem is not None:
        raise ValueError(raw.problem)
    try:
        return json.loads(raw.data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} of the record is not UTF-8") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deep)") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None


def _shape(value: dict[str, Any]) -> Shape:
    return "sharegpt" if "conversations" in value else "messages" if "messages" in value else "alpaca"


def _utf8(text: str) -> str:
    """Without the lone surrogates that JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(extra: dict[str, Any]) -> dict[str, Any]:
    """The keys that we do not know, fit for a UTF-8 file."""
    kept: dict[str, Any] = json.loads(_utf8(json.dumps(extra, ensure_ascii=False))) if extra else {}
    return kept
