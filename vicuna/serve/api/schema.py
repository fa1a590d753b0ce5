"""The request bodies of the OpenAI API, checked field by field.

Before: `openai` has read a body. After: `gateway.Generation`. A field is either acted on or refused by name: unknown
ones, and known ones that this server does not act on unless they hold the value that changes nothing.
Source of the formats: the OpenAI API reference, /v1/chat/completions and /v1/completions.
"""

import itertools
import json
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from vicuna.io.jsonl import JsonObject
from vicuna.serve.errors import InvalidRequest, UnsupportedField
from vicuna.serve.fleet.gateway import Generation
from vicuna.serve.fleet.protocol import MAX_MODEL_NAME, MAX_TOKEN_ID, ChatMessage
from vicuna.serve.sampling import Sampling

# Fields of the OpenAI API that this server does not act on, and the values with which they change nothing (null always
# does). Many clients send them anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "metadata": ({},),
    "user": (),
    "service_tier": ("auto", "default"),
    "safety_identifier": (),
    "prompt_cache_key": (),
}
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1_000  # of each
MAX_MESSAGES = 10_000
MAX_PROMPT_IDS = 200_000
MAX_FIELDS = 64  # of an object; more than any of them has
MAX_NUMBER = 2**31 - 1  # of tokens
MAX_SHOWN_CHARACTERS = 100  # of a value or a name in an error


class RequestBody(BaseModel):
    """Base of the request bodies: strict types (no "0.7" for 0.7), no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(RequestBody):
    """`stream_options` of a request."""

    include_usage: bool = False


class TextPart(RequestBody):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class InputMessage(RequestBody):
    """One message as the client sends it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    def message(self) -> ChatMessage:
        """The message as it travels: text parts joined, `developer` under its older name."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        return ChatMessage.model_construct(role=role, content=content)  # checked already


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class RequestOptions:
    """How an answer is wanted.

    Attributes:
        include_usage: whether a stream ends with a chunk that holds the usage.
    """

    model: str
    stream: bool
    include_usage: bool


class GenerationRequest(RequestBody):
    """The fields that both routes share."""

    model: str = Field(max_length=MAX_MODEL_NAME)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(default=1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(default=0, ge=-1, le=MAX_NUMBER, description="0 or -1 keeps every token")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NUMBER)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]],
        BeforeValidator(_as_list),
    ] = Field(default=[], max_length=MAX_STOP_STRINGS, fail_fast=True)

    def options(self) -> RequestOptions:
        """How the answer is wanted, apart from the messages: those are kept once, in the `Generation`."""
        include_usage = self.stream_options is not None and self.stream_options.include_usage
        return RequestOptions(self.model, self.stream, include_usage)

    def generation(self) -> Generation:
        """The request for the gateway."""
        raise NotImplementedError

    def sampling(self) -> Sampling:
        """How tokens are chosen; without a seed the server draws one, so that the stream can be continued."""
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**64
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=max(self.top_k, 0), seed=seed)


class ChatRequest(GenerationRequest):
    """Body of POST /v1/chat/completions."""

    messages: list[InputMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_NUMBER)

    def generation(self) -> Generation:
        """The request for the gateway."""
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise InvalidRequest("max_tokens and max_completion_tokens differ; send one of them", param="max_tokens")
        return Generation(
            model=self.model,
            sampling=self.sampling(),
            messages=[message.message() for message in self.messages],
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            stop=self.stop,
        )


class CompletionRequest(GenerationRequest):
    """Body of POST /v1/completions: a bare prompt, without a template."""

    prompt: Annotated[
        str
        | Annotated[
            list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]], Field(fail_fast=True, max_length=MAX_PROMPT_IDS)
        ],
        Field(min_length=1),
    ]

    def generation(self) -> Generation:
        """The request for the gateway. Without max_tokens it is 16, as in the OpenAI API."""
        return Generation(
            model=self.model,
            sampling=self.sampling(),
            text=self.prompt if isinstance(self.prompt, str) else None,
            prompt_ids=None if isinstance(self.prompt, str) else self.prompt,
            max_new_tokens=self.max_tokens or 16,
            stop=self.stop,
        )


T = TypeVar("T", bound=GenerationRequest)


def read_fields(body: bytes, kind: type[RequestBody]) -> JsonObject:
    """The fields of a body that mean something, with as many of everything as is taken.

    Raises:
        InvalidRequest: not JSON, or too much of something; `param` names it.
        UnsupportedField: a field that this server would have to ignore.
    """
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidRequest("the body must be a JSON object")
    _check_fields(values, "")
    values = {name: value for name, value in values.items() if value is not None and not _is_neutral(name, value, kind)}
    messages = values.get("messages")
    if isinstance(messages, list):
        if len(messages) > MAX_MESSAGES:
            message = f"'messages' has {len(messages):,} of them, {MAX_MESSAGES:,} are taken; leave the oldest out"
            raise InvalidRequest(message, param="messages")
        for number, message in enumerate(messages):
            if isinstance(message, dict):
                _check_fields(message, f"messages.{number}")
                _drop_empty(message)
                content = message.get("content")
                for part in content if isinstance(content, list) else ():
                    _check_fields(part, f"messages.{number}.content")
    _check_fields(values.get("stream_options"), "stream_options")
    return values


def check_fields(values: JsonObject, kind: type[T]) -> T:
    """The checked request of the fields that `read_fields` gave, up to its first fault.

    Raises:
        InvalidRequest: a field is missing or wrong; `param` names it.
        UnsupportedField: one that is not known.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from None


def _check_fields(value: Any, name: str) -> None:
    """Check that an object has not so many fields that looking for the unknown ones takes long."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        where = f"'{name}'" if name else "the body"
        raise UnsupportedField(
            f"{where} has {len(value):,} fields, {MAX_FIELDS} are taken; leave out the others", param=name
        )


def _is_neutral(name: str, value: Any, kind: type[RequestBody]) -> bool:
    if name in kind.model_fields or name not in NEUTRAL:
        return False
    if any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NEUTRAL[name]):
        return True
    raise UnsupportedField(f"'{name}' is not supported by this server; leave it out", param=name)


def _drop_empty(message: JsonObject) -> None:
    """Drop the empty fields of a message: clients send a reply back with all the fields it came with."""
    for name in [
        name for name, value in message.items() if name not in ("role", "content") and value in (None, [], "")
    ]:
        del message[name]


def _explain(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    # A union's error path ends with names of its members' types; they mean nothing to a client.
    names = [
        name for name in first["loc"] if not (isinstance(name, str) and (name.startswith("list[") or name == "str"))
    ]
    field = ".".join(str(name)[:MAX_SHOWN_CHARACTERS] for name in names)
    if first["type"] == "extra_forbidden":
        return UnsupportedField(f"unknown field '{field}'; leave it out", param=field)
    if first["type"] == "missing":
        return InvalidRequest(f"'{field}' is required", param=field)
    given = _shown(first["input"])
    return InvalidRequest(f"'{field}' is {given}: {first['msg'][0].lower()}{first['msg'][1:]}", param=field)


def _shown(value: Any) -> str:
    """The beginning of a value as JSON, without writing all of it."""
    if isinstance(value, str):
        text = json.dumps(value[:MAX_SHOWN_CHARACTERS])
    elif isinstance(value, list | dict):
        items = list(itertools.islice(value.items() if isinstance(value, dict) else value, 3))
        inner = ", ".join(": ".join(map(_shown, item)) if isinstance(value, dict) else _shown(item) for item in items)
        text = f"{{{inner}}}" if isinstance(value, dict) else f"[{inner}]"
    else:
        text = json.dumps(value)
    return text[:MAX_SHOWN_CHARACTERS]
