"""A small client for any OpenAI-compatible server: the models that are alive, and one streamed reply.

Before: the chat page and the terminal chat. After: `/v1/models` and `/v1/chat/completions` of our controller or of any
other server with this API. Leaving a stream closes its connection, which is how Stop and Ctrl-C free the model: the
server cancels the generation of a client that has left.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.network import is_loopback
from vicuna.serve.client.address import API_KEY_VARIABLE, DEFAULT_API_URL, checked_api_url

# A model that still reads a long prompt, or a full queue, may stay silent for minutes; a dead host may not.
TIMEOUT = httpx.Timeout(300.0, connect=5.0)
MODELS_TIMEOUT = httpx.Timeout(5.0)


class ApiError(VicunaError):
    """The server could not be reached, refused the request or broke off the reply.

    `status` is the HTTP status, None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Chunk:
    """One event of a streamed reply: new text, its `finish_reason`, or its usage."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A request for the next reply of a chat. `max_tokens` counts the reply's tokens only."""

    model: str
    messages: Sequence[Message]
    temperature: float
    top_p: float
    max_tokens: int

    def body(self) -> JsonObject:
        """The JSON body of `/v1/chat/completions`."""
        return {
            "model": _utf8(self.model),
            "messages": [{"role": message.role, "content": _utf8(message.content)} for message in self.messages],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class ApiClient:
    """Talks to the server at `api_url`; the key, if it wants one, comes from `VICUNA_API_KEY` only.

    Raises:
        UsageError: `api_url` is not an http(s) address, or carries a password; no header takes the key.
    """

    def __init__(self, api_url: str = DEFAULT_API_URL) -> None:
        self.api_url = checked_api_url(api_url)
        key = os.environ.get(API_KEY_VARIABLE, "")
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"{API_KEY_VARIABLE} holds characters that no HTTP header takes; set it again")
        self._settings: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": TIMEOUT,
            # A proxy for the outside world cannot reach the user's own machine.
            "trust_env": not is_loopback(urlsplit(self.api_url).hostname or ""),
        }

    def models(self) -> list[str]:
        """Names of the models that are alive, in the server's order."""
        with httpx.Client(**self._settings) as client, self._errors():
            return _model_names(client.get(f"{self.api_url}/models", timeout=MODELS_TIMEOUT), self.api_url)

    async def models_async(self) -> list[str]:
        """`models` for an event loop."""
        async with httpx.AsyncClient(**self._settings) as client:
            with self._errors():
                return _model_names(await client.get(f"{self.api_url}/models", timeout=MODELS_TIMEOUT), self.api_url)

    @contextmanager
    def stream(self, request: ChatRequest) -> Iterator[Iterator[Chunk]]:
        """The chunks of one reply; leaving the `with` block closes the connection.

        Raises:
            ApiError: no server, a refusal, or a reply that broke off.
        """
        with (
            self._errors(),
            httpx.Client(**self._settings) as client,
            client.stream("POST", f"{self.api_url}/chat/completions", json=request.body()) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise refusal(response)
            yield self._chunks(response)

    def _chunks(self, response: httpx.Response) -> Iterator[Chunk]:
        events = EventReader()
        for data in response.iter_bytes():
            yield from events.feed(data)
        events.finish()

    @asynccontextmanager
    async def stream_async(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """`stream` for an event loop."""
        with self._errors():
            async with (
                httpx.AsyncClient(**self._settings) as client,
                client.stream("POST", f"{self.api_url}/chat/completions", json=request.body()) as response,
            ):
                if response.status_code != 200:
                    await response.aread()
                    raise refusal(response)
                yield self._chunks_async(response)

    async def _chunks_async(self, response: httpx.Response) -> AsyncIterator[Chunk]:
        events = EventReader()
        async for data in response.aiter_bytes():
            for chunk in events.feed(data):
                yield chunk
        events.finish()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ApiError(f"no server answers at {self.api_url}; start one with: vicuna serve --model PATH") from None
        except httpx.TimeoutException:
            raise ApiError(f"the server at {self.api_url} went silent; try again") from None
        except httpx.HTTPError as error:
            raise ApiError(f"the connection to {self.api_url} broke ({error}); try again") from None


class EventReader:
    """Reads the server-sent events of a chat completion from bytes that may be cut anywhere.

    Lines are split by hand: `str.splitlines`, which httpx uses, also splits at U+2028 inside a JSON string.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._is_finished = False

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks completed by `data`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [chunk for line in lines if (chunk := self._read(line)) is not None]

    def finish(self) -> None:
        """Check that the reply has come to its end."""
        if not self._is_finished:
            raise ApiError("the reply broke off: the server closed the connection before its end")

    def _read(self, line: bytes) -> Chunk | None:
        if not line.startswith(b"data:"):
            return None  # the blank line after an event, a comment that keeps the connection alive, an id
        data = line[5:].strip()
        if data == b"[DONE]":
            self._is_finished = True
            return None
        try:
            event = json.loads(data)
            if event.get("error"):
                raise ApiError(f"the reply broke off: {_message(event) or 'the server failed'}")
            chunk = _chunk(event)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError):
            raise ApiError(f"the server sent an event that is not a chat completion: {_excerpt(data)}") from None
        self._is_finished = self._is_finished or chunk.finish_reason is not None
        return chunk


def refusal(response: httpx.Response) -> ApiError:
    """What an answer other than 200 means, and the way out."""
    status = response.status_code
    try:
        message = _message(response.json())
    except ValueError:
        message = ""
    message = message or _excerpt(response.content) or response.reason_phrase
    if status == 401:
        text = f"the server wants another API key ({message}); put it into {API_KEY_VARIABLE}"
    elif status in (429, 503):
        seconds = response.headers.get("retry-after", "")
        when = f"in {seconds} s" if seconds.isdecimal() else "in a moment"
        text = f"the server is busy ({message}); try again {when}"
    elif status >= 500:
        text = f"the server failed with {status} ({message}); try again, or look into its log"
    else:
        text = f"the server refused the request with {status}: {message}"
    return ApiError(text, status)


def _chunk(event: JsonObject) -> Chunk:
    usage = event.get("usage")
    counted = Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"])) if usage else None
    choices = event.get("choices") or []
    if not choices:
        return Chunk(usage=counted)
    choice = choices[0]
    return Chunk((choice.get("delta") or {}).get("content") or "", choice.get("finish_reason"), counted)


def _model_names(response: httpx.Response, api_url: str) -> list[str]:
    if response.status_code != 200:
        raise refusal(response)
    try:
        return [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, TypeError, KeyError):
        raise ApiError(f"{api_url}/models is not an OpenAI model list; is --api-url right?") from None


def _message(body: Any) -> str:
    """The message of an error body, {"error": {"message": ...}}, or nothing."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message).split()) if message else ""


def _excerpt(data: bytes) -> str:
    return " ".join(data[:200].decode("utf-8", "replace").split())


def _utf8(text: str) -> str:
    """Without half surrogate pairs, which a JSON string or a file name can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
