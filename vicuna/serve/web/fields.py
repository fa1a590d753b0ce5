"""What a visitor's browser sends, as checked fields: text or a number, and nothing that the page's framework could take
for something else.

Before: `guard` has the body of a request to the page. After: Gradio gets the body made anew of what was checked, and
`events` its values. To Gradio an object with the right keys is a file of the server, which it copies, or an address,
which it fetches, before any code of ours runs. So nothing but text and numbers reaches it: the browser's storage, an
object, travels as text (`style.inputs_js`) and is read by `read_stored`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from vicuna.conversation import Message
from vicuna.io.jsonl import JsonObject
from vicuna.serve.client.transcript import read_messages
from vicuna.serve.door.json_shape import check_shape
from vicuna.serve.errors import InvalidRequest, RequestError

MAX_QUESTION_CHARACTERS = 200_000
MAX_STORED_CHARACTERS = 2 << 20  # of a conversation, with its settings, as JSON
MAX_NAME_CHARACTERS = 128
MAX_MESSAGES = 5_000  # of a conversation
MAX_STORED_PARTS = 3 * MAX_MESSAGES + 100
MAX_NUMBER = 2**31 - 1
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of a session or an event


@dataclass(frozen=True)
class Field:
    """One value that the browser sends.

    Attributes:
        max_characters: of a text; 0: it is a number.
        least, most: of a number.
        may_be_none: whether null will do.
    """

    name: str
    max_characters: int = 0
    least: float = 0
    most: float = MAX_NUMBER
    may_be_none: bool = False


TEMPERATURE, TOP_P = Field("temperature", least=0, most=2), Field("top_p", least=0, most=1)
MAX_TOKENS = Field("max_tokens", least=1, most=8192)
SYSTEM = Field("system", MAX_QUESTION_CHARACTERS, may_be_none=True)  # an empty box may be null
MODEL = Field("model", MAX_NAME_CHARACTERS, may_be_none=True)
QUESTION = Field("question", MAX_QUESTION_CHARACTERS, may_be_none=True)
STORED = Field("stored", MAX_STORED_CHARACTERS, may_be_none=True)
SESSION, EVENT = Field("session_hash", 64), Field("event_id", 64)
FUNCTION, TRIGGER = Field("fn_index"), Field("trigger_id", may_be_none=True)
INDEX = Field("index", most=MAX_MESSAGES)


def checked(value: Any, field: Field) -> Any:
    """A value as the field says: text of bounded length, or a finite number in its range, or None.

    Raises:
        InvalidRequest: it is something else, above all a list or an object.
    """
    if value is None and field.may_be_none:
        return None
    if field.max_characters:
        if not isinstance(value, str):
            raise InvalidRequest(f"'{field.name}' is not text", param=field.name)
        if len(value) > field.max_characters:
            length = f"has {len(value):,} characters, {field.max_characters:,} are taken"
            raise InvalidRequest(f"'{field.name}' {length}; shorten it", param=field.name)
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidRequest(f"'{field.name}' is not a number", param=field.name)
    if not field.least <= value <= field.most:
        limits = f"{field.least:g} to {field.most:g} are taken"
        raise InvalidRequest(f"'{field.name}' is out of its range, {limits}", param=field.name)
    return value


@dataclass(frozen=True)
class Event:
    """An event of the page: what it takes, and whether it comes with a message that was edited."""

    fields: tuple[Field, ...]
    is_edit: bool = False


def checked_event(body: bytes, events: Mapping[int, Event]) -> JsonObject:
    """The body of an event, made anew of checked fields only.

    Args:
        events: those of the page, by their number.

    Raises:
        InvalidRequest: it is not that of an event.
    """
    values = _object(body)
    number = checked(values.get("fn_index"), FUNCTION)
    event = events.get(number)
    if event is None:
        raise InvalidRequest(f"the page has no event {number:g}; reload it", param="fn_index")
    data = values.get("data")
    if not isinstance(data, list) or len(data) != len(event.fields):
        raise InvalidRequest(f"event {number} takes {len(event.fields)} values; reload the page", param="data")
    return {
        "data": [checked(value, field) for value, field in zip(data, event.fields, strict=True)],
        "fn_index": number,
        "session_hash": checked_id(values.get("session_hash"), SESSION),
        "trigger_id": checked(values.get("trigger_id"), TRIGGER),
        "event_data": _edit(values.get("event_data")) if event.is_edit else None,
    }


def checked_end(body: bytes) -> JsonObject:
    """The body of a request that ends an event (`cancel`, `reset`), made anew of checked fields only.

    Raises:
        InvalidRequest: it is not that of such a request.
    """
    values = _object(body)
    ended: JsonObject = {"event_id": checked_id(values.get("event_id"), EVENT)}
    if "fn_index" in values:
        ended["fn_index"] = checked(values["fn_index"], FUNCTION)
        ended["session_hash"] = checked_id(values.get("session_hash"), SESSION)
    return ended


def checked_id(value: Any, field: Field) -> str:
    """The name that the page's script has drawn for a session or an event.

    Raises:
        InvalidRequest: it is no such name.
    """
    text = checked(value, field)
    if not ID.fullmatch(text):
        raise InvalidRequest(f"'{field.name}' holds characters other than letters and digits", param=field.name)
    return str(text)


@dataclass(frozen=True)
class Stored:
    """What the browser keeps: the conversation and the settings. A part that is damaged is None, or no messages."""

    messages: tuple[Message, ...] = ()
    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None


def read_stored(text: Any) -> Stored:
    """The browser's storage, which came as text; a damaged one reads as an empty chat."""
    try:
        data = checked(text, STORED)
        if not data:
            return Stored()
        encoded = data.encode("utf-8", "replace")
        check_shape(encoded, max_parts=MAX_STORED_PARTS)
        values = from_json(encoded, allow_inf_nan=False)
    except (RequestError, ValueError):
        return Stored()
    if not isinstance(values, dict):
        return Stored()
    messages = read_messages(values)
    if len(messages) > MAX_MESSAGES:
        messages = []
    kept = {
        field.name: _checked_or_none(values.get(field.name), field)
        for field in (MODEL, SYSTEM, TEMPERATURE, TOP_P, MAX_TOKENS)
    }
    return Stored(tuple(messages), **kept)


def _checked_or_none(value: Any, field: Field) -> Any:
    try:
        return checked(value, field)
    except InvalidRequest:
        return None


def _object(body: bytes) -> JsonObject:
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InvalidRequest("the body is not a JSON object")
    return values


def _edit(value: Any) -> JsonObject:
    """Which message was edited, and its new text."""
    values = value if isinstance(value, dict) else {}
    index: Any = values.get("index")
    if isinstance(index, Sequence) and len(index) in (1, 2):  # of a conversation in pairs, the place in the pair too
        index = index[0]
    text = checked(values.get("value"), QUESTION) or ""
    return {"index": int(checked(index, INDEX)), "value": text, "previous_value": ""}  # which nothing here asks for
