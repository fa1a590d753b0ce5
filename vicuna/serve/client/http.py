"""A small client for any OpenAI-compatible server: the models that are alive, and one streamed reply.

Before: the chat page and the terminal chat. After: `/v1/models` and `/v1/chat/completions` of our controller or of any
other server with this API. Leaving a stream closes its connection, which is how Stop and Ctrl-C free the model: the
server cancels the generation of a client that has left.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from vicuna.conversation import Message
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.network import is_loopback
from vicuna.serve.auth import first_api_key
from vicuna.serve.client.address import API_KEY_VARIABLE, DEFAULT_API_URL, checked_api_url

# A model that still reads a long prompt, or a full queue, may stay silent for minutes; a dead host may not.
TIMEOUT = httpx.Timeout(300.0, connect=5.0)
MODELS_TIMEOUT = httpx.Timeout(5.0)
MAX_ANSWER_BYTES = 1 << 20  # of a list of models or a refusal
MAX_EVENT_BYTES = 1 << 20  # of one line of a stream
MAX_STREAM_BYTES = 256 << 20  # of all of them
MAX_MODELS = 1_000
MAX_MESSAGE_CHARACTERS = 1_000  # of what a server says about a failure


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
        key = first_api_key()
        # Nothing packed: its size would say nothing about what it becomes.
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key.reveal()}"} if key else {})
        self._settings: dict[str, Any] = {
            "headers": headers,
            "timeout": TIMEOUT,
            "follow_redirects": False,  # the key is for the server that the user named
            # A proxy for the outside world cannot reach the user's own machine.
            "trust_env": not is_loopback(urlsplit(self.api_url).hostname or ""),
        }

    def models(self) -> list[str]:
        """Names of the models that are alive, in the server's order."""
        with (
            self._errors(),
            httpx.Client(**self._settings) as client,
            client.stream("GET", f"{self.api_url}/models", timeout=MODELS_TIMEOUT) as response,
        ):
            answer = Answer(response)
            for piece in response.iter_raw():
                answer.add(piece)
            return answer.model_names(self.api_url)

    async def models_async(self) -> list[str]:
        """`models` for an event loop."""
        with self._errors():
            async with (
                httpx.AsyncClient(**self._settings) as client,
                client.stream("GET", f"{self.api_url}/models", timeout=MODELS_TIMEOUT) as response,
            ):
                answer = Answer(response)
                async for piece in response.aiter_raw():
                    answer.add(piece)
                return answer.model_names(self.api_url)

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
            answer = Answer(response)
            if response.status_code != 200:
                for piece in response.iter_raw():
                    answer.add(piece)
                raise answer.refusal()
            yield self._chunks(response)

    def _chunks(self, response: httpx.Response) -> Iterator[Chunk]:
        events = EventReader()
        for data in response.iter_raw():
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
                answer = Answer(response)
                if response.status_code != 200:
                    async for piece in response.aiter_raw():
                        answer.add(piece)
                    raise answer.refusal()
                yield self._chunks_async(response)

    async def _chunks_async(self, response: httpx.Response) -> AsyncIterator[Chunk]:
        events = EventReader()
        async for data in response.aiter_raw():
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


class Answer:
    """An answer that is no stream: a list of models, or a refusal. Its beginning is kept, the rest is not read.

    Raises:
        ApiError: it is packed, although nothing packed was asked for.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response, self._body = response, b""
        packing = response.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("", "identity"):
            raise ApiError(f"the server sends its answer packed ({packing[:40]}), which was not asked for")

    def add(self, piece: bytes) -> None:
        """The next piece of the body.

        Raises:
            ApiError: it is too long.
        """
        self._body += piece
        if len(self._body) > MAX_ANSWER_BYTES:
            if self._response.status_code != 200:
                raise self.refusal()
            raise ApiError(f"the server's answer has more than {MAX_ANSWER_BYTES:,} bytes; is --api-url right?")

    def refusal(self) -> ApiError:
        """What an answer other than 200 means."""
        return refusal(self._response, self._body)

    def model_names(self, api_url: str) -> list[str]:
        """The names in a list of models.

        Raises:
            ApiError: it is none.
        """
        if self._response.status_code != 200:
            raise self.refusal()
        try:
            return [str(model["id"]) for model in json.loads(self._body)["data"][:MAX_MODELS]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ApiError(f"{api_url}/models is not an OpenAI model list; is --api-url right?") from None


class EventReader:
    """Reads the server-sent events of a chat completion from bytes that may be cut anywhere.

    Lines are split by hand: `str.splitlines`, which httpx uses, also splits at U+2028 inside a JSON string.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of the line that is not whole yet
        self._line_bytes = self._num_bytes = 0
        self._is_finished = False

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks completed by `data`.

        Raises:
            ApiError: a line, or all of them together, are longer than any reply; or one is no event.
        """
        first, *others = data.split(b"\n")
        self._line.append(first)
        self._line_bytes += len(first)
        self._num_bytes += len(data)
        lines = []
        if others:
            lines = [b"".join(self._line), *others[:-1]]
            self._line, self._line_bytes = [others[-1]], len(others[-1])
        if self._num_bytes > MAX_STREAM_BYTES or self._line_bytes > MAX_EVENT_BYTES:
            limits = f"{MAX_EVENT_BYTES:,} bytes of a line and {MAX_STREAM_BYTES:,} of a reply are taken"
            raise ApiError(f"the reply broke off: {limits}")
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
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError):
            raise ApiError(f"the server sent an event that is not a chat completion: {_excerpt(data)}") from None
        self._is_finished = self._is_finished or chunk.finish_reason is not None
        return chunk


def refusal(response: httpx.Response, body: bytes) -> ApiError:
    """What an answer other than 200 means, and the way out."""
    status = response.status_code
    try:
        message = _message(json.loads(body))
    except (ValueError, RecursionError):
        message = ""
    message = message or _excerpt(body) or response.reason_phrase
    if status == 401:
        text = f"the server wants another API key ({message}); put it into {API_KEY_VARIABLE}"
    elif status in (429, 503):
        seconds = response.headers.get("retry-after", "")
        when = f"in {seconds} s" if seconds.isdecimal() and len(seconds) < 6 else "in a moment"
        text = f"the server is busy ({message}); try again {when}"
    elif status >= 500:
        text = f"the server failed with {status} ({message}); try again, or look into its log"
    else:
        text = f"the server refused the request with {status}: {message}"
    return ApiError(text, status)


def _chunk(event: JsonObject) -> Chunk:
    usage = event.get("usage")
    counted = Usage(_count(usage["prompt_tokens"]), _count(usage["completion_tokens"])) if usage else None
    choices = event.get("choices") or []
    if not choices:
        return Chunk(usage=counted)
    choice = choices[0]
    text, reason = (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason")
    if not isinstance(text, str) or not isinstance(reason, str | None):
        raise TypeError("the content is no text")
    return Chunk(text, reason, counted)


def _count(value: Any) -> int:
    count = int(value)
    if not 0 <= count <= MAX_STREAM_BYTES:
        raise ValueError("not a number of tokens")
    return count


def _message(body: Any) -> str:
    """The message of an error body, {"error": {"message": ...}}, or nothing."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message)[:MAX_MESSAGE_CHARACTERS].split()) if message else ""


def _excerpt(data: bytes) -> str:
    return " ".join(data[:200].decode("utf-8", "replace").split())


def _utf8(text: str) -> str:
    """Without half surrogate pairs, which a JSON string or a file name can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
