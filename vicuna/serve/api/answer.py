"""The answers of the OpenAI API as JSON: whole ones, the chunks of a stream, errors, entries of the model list.

Before: `openai` has the text and the `gateway.Journal`. After: the client. A chunk is the hot path: one JSON string
between two constant pieces of bytes.
Source of the formats: the OpenAI API reference, /v1/chat/completions, /v1/completions, /v1/models.
"""

import json
import time
import uuid

from vicuna.io.jsonl import JsonObject
from vicuna.serve.fleet.gateway import Journal


def event(value: JsonObject) -> bytes:
    """A server-sent event that holds one JSON value."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class Answer:
    """One answer of the API, in chunks or whole. What differs between the two routes stands in the subclasses.

    Attributes:
        prefix: what its id begins with.
    """

    prefix: str

    def __init__(self, model: str) -> None:
        self.model = model
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())
        chunk = event({**self.head(), "choices": [self.choice("\0")]})
        self.before, self.after = chunk.split(json.dumps("\0").encode())

    def head(self, is_chunk: bool = True) -> JsonObject:
        """The fields that the whole answer and each of its chunks begin with."""
        return {"id": self.id, "object": self.object_name(is_chunk), "created": self.created, "model": self.model}

    def chunk(self, text: str) -> bytes:
        """A piece of the text."""
        return self.before + json.dumps(text, ensure_ascii=False).encode() + self.after

    def closing(self, reason: str | None, journal: Journal) -> bytes:
        """The last chunk of the text, which says why it ended."""
        return event({**self.head(), "choices": [self.choice(None, reason)], **moves(journal)})

    def whole(self, text: str, reason: str, journal: Journal) -> JsonObject:
        """The answer in one piece."""
        choice = self.whole_choice(text, reason)
        return {**self.head(False), "choices": [choice], "usage": usage(journal), **moves(journal)}

    def object_name(self, is_chunk: bool) -> str:
        """The value of `object`."""
        raise NotImplementedError

    def opening(self) -> bytes:
        """What comes before the text, if anything."""
        raise NotImplementedError

    def choice(self, text: str | None, reason: str | None = None) -> JsonObject:
        """A chunk's choice; without text it is the last."""
        raise NotImplementedError

    def whole_choice(self, text: str, reason: str) -> JsonObject:
        """The one choice of an answer in one piece."""
        raise NotImplementedError


class ChatAnswer(Answer):
    """chat.completion and chat.completion.chunk."""

    prefix = "chatcmpl"

    def object_name(self, is_chunk: bool) -> str:
        """See `Answer`."""
        return "chat.completion.chunk" if is_chunk else "chat.completion"

    def opening(self) -> bytes:
        """The role, with empty content."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return event({**self.head(), "choices": [choice]})

    def choice(self, text: str | None, reason: str | None = None) -> JsonObject:
        """See `Answer`."""
        return {
            "index": 0,
            "delta": {} if text is None else {"content": text},
            "logprobs": None,
            "finish_reason": reason,
        }

    def whole_choice(self, text: str, reason: str) -> JsonObject:
        """See `Answer`."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}


class CompletionAnswer(Answer):
    """text_completion, the same in chunks and whole."""

    prefix = "cmpl"

    def object_name(self, _is_chunk: bool) -> str:
        """See `Answer`."""
        return "text_completion"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def choice(self, text: str | None, reason: str | None = None) -> JsonObject:
        """See `Answer`."""
        return {"index": 0, "text": text or "", "logprobs": None, "finish_reason": reason}

    whole_choice = choice


def moves(journal: Journal) -> JsonObject:
    """The field `vicuna` of a reply that lost its worker and was continued by another; else no field."""
    return {"vicuna": {"moves": journal.num_moves}} if journal.num_moves else {}


def usage(journal: Journal) -> dict[str, int]:
    """The tokens of the prompt and those the client was given, each counted once however often the stream moved."""
    prompt, reply = len(journal.prompt_ids or ()), len(journal.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}


def model_entry(name: str, since: float) -> JsonObject:
    """An entry of /v1/models; `created` is when this server first heard of the model."""
    return {"id": name, "object": "model", "created": int(since), "owned_by": "vicuna"}
