"""One record becomes token ids with a mask of the supervised ones; or a reason why it cannot.

Each conversation is rendered once and tokenized once, by `vicuna.conversation.encode`; the supervised tokens are those
of the assistant's replies, end marks included. Nothing is cut: a conversation longer than `max_length` is left out, and
so is one that cannot be read or has no reply, because a run without labels looks healthy and learns nothing.

Files are read a few records at a time, so that memory does not grow with them. This file loads no torch, so that the
worker processes of `tokenize` start quickly.

Before: files of records. After: `tokenize` collects the examples of all of them.
"""

import codecs
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from vicuna.conversation import IGNORE_INDEX, Conversation, Template, encode, from_record
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.data.read.arrays import MAX_RECORD_BYTES, TOO_LARGE, ArrayReader, BrokenArrayError
from vicuna.errors import VicunaError
from vicuna.io.jsonl import parse_line, read_json

CHUNK_BYTES = 1 << 18
READ_BYTES = 1 << 20

Source = tuple[str, bytes]
"""Where a record stands (file and line), and the record: a line, or an item of a JSON array; empty if too long."""


@dataclass
class Examples:
    """Tokenized conversations end to end, and the records that were left out.

    Args:
        ids: of the records.
        lengths: tokens of each example.
        tokens: token ids (int32) of all examples.
        is_supervised: one byte for each token, 0 or 1.
        too_long: ids of records with more than `max_length` tokens.
        malformed: what is wrong with the others that cannot be used, with their place and id.
    """

    ids: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tokens: "array[int]" = field(default_factory=lambda: array("i"))
    is_supervised: bytearray = field(default_factory=bytearray)
    too_long: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)

    @property
    def num_records(self) -> int:
        """Records read, the ones left out too."""
        return len(self.ids) + len(self.too_long) + len(self.malformed)


def read_chunks(paths: Iterable[Path]) -> Iterator[list[Source]]:
    """The records of the files (JSON lines, or a JSON array where the name ends in .json), a few at a time.

    Raises:
        VicunaError: a file cannot be read, or a JSON file holds no list.
    """
    for path in paths:
        yield from _json_chunks(path) if path.suffix == ".json" else _line_chunks(path)


def _line_chunks(path: Path) -> Iterator[list[Source]]:
    chunk: list[Source] = []
    size = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    with file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD_BYTES + 1), b""), 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) > MAX_RECORD_BYTES:
                while not line.endswith(b"\n") and (more := file.readline(READ_BYTES)):  # the rest of it
                    line = more
                line = b""
            elif not line.strip():
                continue
            chunk.append((f"{path}:{number}", line))
            size += len(line)
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _json_chunks(path: Path) -> Iterator[list[Source]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    with file:
        beginning = file.read(READ_BYTES).removeprefix(codecs.BOM_UTF8)
        if beginning.lstrip()[:1] != b"[":
            raise _no_list(path)
        reader = ArrayReader(beginning, lambda: file.read(READ_BYTES))
        chunk: list[Source] = []
        size = number = 0
        try:
            while reader.next_value() is not None:
                item = reader.value()
                chunk.append((f"{path}: item {number}", item))
                number += 1
                size += len(item)
                if size >= CHUNK_BYTES:
                    yield chunk
                    chunk, size = [], 0
        except BrokenArrayError as error:
            raise VicunaError(f"{path}: not JSON ({error}, byte {error.place})") from None
        if chunk:
            yield chunk


def _no_list(path: Path) -> VicunaError:
    """What is wrong with a file that does not begin as a list does."""
    if path.stat().st_size > MAX_RECORD_BYTES:
        return VicunaError(f"{path} holds no JSON list; a list of records is needed (or .jsonl)")
    kind = type(read_json(path)).__name__  # or it is not JSON at all
    return VicunaError(f"{path} holds a JSON {kind}; a list of records is needed (or .jsonl)")


def encode_chunk(chunk: Sequence[Source], template: Template, tokenizer: Tokenizer, max_length: int) -> Examples:
    """Tokenize some records.

    Raises:
        VicunaError: template and tokenizer do not fit, which is not the fault of a record.
    """
    examples = Examples()
    for place, record in chunk:
        try:
            conversation = _parse(record, place)
            input_ids, is_supervised = encode_record(conversation, template, tokenizer, place)
        except VicunaError as error:
            examples.malformed.append(str(error))
            continue
        if len(input_ids) > max_length:
            examples.too_long.append(conversation.id)
            continue
        examples.ids.append(conversation.id)
        examples.lengths.append(len(input_ids))
        examples.tokens.extend(input_ids)
        examples.is_supervised.extend(is_supervised)
    return examples


def _parse(record: bytes, place: str) -> Conversation:
    if not record:
        raise VicunaError(f"{place}: {TOO_LARGE}, which is the limit; split it")
    value = parse_line(record, place)
    try:
        return from_record(value)
    except VicunaError as error:
        raise VicunaError(f"{place}: record {value.get('id', '(no id)')}: {error}") from None


def encode_record(
    conversation: Conversation, template: Template, tokenizer: Tokenizer, place: str
) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is supervised.

    Raises:
        VicunaError: it cannot be rendered, or none of its tokens is supervised.
    """
    try:
        encoding = encode(conversation.messages, template, tokenizer)
    except VicunaError as error:
        raise VicunaError(f"{place}: record {conversation.id}: {error}") from None
    is_supervised = [label != IGNORE_INDEX for label in encoding.labels]
    num_context = _num_context_replies(conversation, place)
    for start, end in encoding.reply_spans[:num_context]:
        is_supervised[start:end] = [False] * (end - start)
    if is_supervised:
        is_supervised[0] = False  # nothing comes before it that could predict it
    if not any(is_supervised):
        raise VicunaError(
            f"{place}: record {conversation.id} has no reply to learn from under template {template.name}; "
            "remove it, or clean the data with vicuna data"
        )
    return encoding.input_ids, is_supervised


def _num_context_replies(conversation: Conversation, place: str) -> int:
    """Replies among the first `context_messages` messages after the system text: context, supervised in another record.

    Replies that follow one another without another role's turn between them are one span to `encode`: they count once.
    """
    messages = conversation.messages
    num_system = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    count: Any = conversation.extra.get("context_messages", 0)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(messages) - num_system:
        raise VicunaError(
            f"{place}: record {conversation.id}: context_messages is {count!r}; "
            f"it counts messages behind the system text, from 0 to {len(messages) - num_system}"
        )
    roles = [message.role for message in messages[num_system : num_system + count]]
    return sum(before != role == "assistant" for before, role in pairwise(["user", *roles]))
