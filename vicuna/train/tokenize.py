"""Records become token ids, with a mask of what is to be learned.

Each conversation is rendered once and tokenized once, by `vicuna.conversation.encode`; the mask is the span of each
assistant's reply, end mark included. Nothing is cut: a conversation longer than `max_length` is left out and named,
and one without a single reply is an error, because training on nothing looks healthy and is not.

Before: files of records. After: `packing` (lengths) and `dataset` (tokens).
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vicuna import log
from vicuna.conversation import IGNORE_INDEX, Conversation, Template, encode, from_record
from vicuna.errors import VicunaError
from vicuna.jsonl import Row, read_json, read_jsonl

MAX_NAMED = 5


@dataclass(frozen=True)
class TokenizedConversations:
    """Conversations end to end in flat tensors: 5 bytes a token, so 200 million tokens take 1 GB.

    Args:
        ids: the record ids.
        lengths: tokens of each conversation.
        input_ids: (sum of lengths,) int32.
        is_learned: (sum of lengths,) bool: the token belongs to a reply and is predicted from the ones before it.
        too_long: ids of the records that were left out.
    """

    ids: list[str]
    lengths: list[int]
    input_ids: torch.Tensor
    is_learned: torch.Tensor
    too_long: list[str]

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss looks at."""
        return int(self.is_learned.sum())

    def fingerprint(self) -> str:
        """SHA-256 over everything that training sees: token ids, masks, lengths and their order."""
        digest = hashlib.sha256(array("q", self.lengths).tobytes())
        digest.update(self.input_ids.numpy())
        digest.update(self.is_learned.numpy())
        return digest.hexdigest()


def tokenize_files(
    paths: Sequence[Path], template: Template, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> TokenizedConversations:
    """Read, render and tokenize every record of the files.

    Raises:
        VicunaError: a file or record that cannot be read, a record without a reply, nothing left to train on.
    """
    ids: list[str] = []
    lengths: list[int] = []
    too_long: list[str] = []
    tokens, mask = array("i"), bytearray()
    with log.Progress(None, description="tokenizing", unit="conversations") as progress:
        for place, record in _read_records(paths):
            conversation = _parse(record, place)
            input_ids, is_learned = _encode(conversation, template, tokenizer, place)
            progress.update()
            if len(input_ids) > max_length:
                too_long.append(conversation.id)
                continue
            ids.append(conversation.id)
            lengths.append(len(input_ids))
            tokens.extend(input_ids)
            mask.extend(is_learned)
    where = ", ".join(map(str, paths))
    if too_long:
        log.warning(
            f"{len(too_long)} of {len(too_long) + len(ids)} conversations in {where} are longer than {max_length} "
            f"tokens and left out: {name_some(too_long)}; python -m vicuna.data --max-tokens {max_length} splits them"
        )
    if not ids:
        reason = f"every conversation is longer than {max_length} tokens" if too_long else "it has no records"
        raise VicunaError(f"{where}: nothing to train on, {reason}")
    return TokenizedConversations(
        ids,
        lengths,
        torch.frombuffer(tokens, dtype=torch.int32),
        torch.frombuffer(mask, dtype=torch.bool),
        too_long,
    )


def name_some(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    named = ", ".join(ids[:MAX_NAMED])
    return named if len(ids) <= MAX_NAMED else f"{named} and {len(ids) - MAX_NAMED} more"


def _read_records(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """Records and where they stand, from JSON lines or from a JSON array."""
    for path in paths:
        if path.suffix != ".json":
            yield from ((str(path), record) for record in read_jsonl(path))
            continue
        records = read_json(path)
        if not isinstance(records, list):
            raise VicunaError(f"{path} holds a JSON {type(records).__name__}; a list of records is needed (or .jsonl)")
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise VicunaError(f"{path}: item {number} is a {type(record).__name__}; a record is a JSON object")
            yield str(path), record


def _parse(record: Row, place: str) -> Conversation:
    try:
        return from_record(record)
    except VicunaError as error:
        raise VicunaError(f"{place}: record {record.get('id', '(no id)')}: {error}") from None


def _encode(
    conversation: Conversation, template: Template, tokenizer: PreTrainedTokenizerBase, place: str
) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is to be learned."""
    try:
        encoding = encode(conversation.messages, template, tokenizer)
    except VicunaError as error:
        raise VicunaError(f"{place}: record {conversation.id}: {error}") from None
    is_learned = [label != IGNORE_INDEX for label in encoding.labels]
    num_context = _num_context_replies(conversation, place)
    for start, end in encoding.reply_spans[:num_context]:
        is_learned[start:end] = [False] * (end - start)
    if is_learned:
        is_learned[0] = False  # nothing comes before it that could predict it
    if not any(is_learned):
        raise VicunaError(
            f"{place}: record {conversation.id} has no reply to learn from under template {template.name}; "
            "remove it, or clean the data with python -m vicuna.data"
        )
    return encoding.input_ids, is_learned


def _num_context_replies(conversation: Conversation, place: str) -> int:
    """Replies among the first `context_messages` messages behind the system text; another piece is trained on them.

    Replies that follow one another without a turn between them are one span to `encode`, so they count once.
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
