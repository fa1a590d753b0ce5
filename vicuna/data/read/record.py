"""Raw records to records: JSON is parsed, its shape recognized (ShareGPT, OpenAI or Alpaca), its keys sorted out.

What is not a record becomes `Malformed`, with its place and the reason.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import RecordError, from_record
from vicuna.data.read.sources import RawRecord, raw_records, stem
from vicuna.data.step_kinds import Record, Shape, excerpt
from vicuna.io.jsonl import JsonObject


@dataclass(frozen=True)
class Malformed:
    """Something in a file that is not a record. `reason` has its place, why it is none, and how it begins."""

    id: str
    source: str
    reason: str


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """The records of a file, in its order."""
    return map(read_record, raw_records(path))


def read_record(raw: RawRecord) -> Record | Malformed:
    """Parse a raw record."""
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
        return Malformed(_without_surrogates(identifier), source, _without_surrogates(f"{raw.place}: {error}: {shown}"))
    identifier = _without_surrogates(conversation.id) or fallback
    original = conversation.extra.pop("original_id", identifier)
    return Record(
        id=identifier,
        messages=conversation.messages,
        source=source,
        original_id=_without_surrogates(original) if isinstance(original, str) else identifier,
        shape=_shape(value),
        turns=tuple(range(len(conversation.messages))),
        extra=_writable({key: value for key, value in conversation.extra.items() if key != "num_tokens"}),
    )


def _value(raw: RawRecord) -> Any:
    """The JSON value of a raw record.

    Raises:
        ValueError: it is not JSON; the message says why.
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


def _shape(value: JsonObject) -> Shape:
    return "sharegpt" if "conversations" in value else "messages" if "messages" in value else "alpaca"


def _without_surrogates(text: str) -> str:
    """Text without lone surrogates, which JSON can contain and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _writable(extra: JsonObject) -> JsonObject:
    """The record's other keys, without lone surrogates."""
    writable: JsonObject = json.loads(_without_surrogates(json.dumps(extra, ensure_ascii=False))) if extra else {}
    return writable
