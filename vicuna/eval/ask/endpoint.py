"""One model behind an OpenAI-compatible server: requests with retries, pauses and errors that name the way out.

Called by `answer` and `judge`; calls the `openai` client. The retries are ours, because the client's own ignore a
Retry-After above their limit, and because a mistake of the user's (wrong address, wrong key) must end the run at once.
"""

import asyncio
import email.utils
import json
import random
import re
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError, require
from vicuna.eval.ask.usage import Usage
from vicuna.eval.ask.wire import ReplyRefused, http_client
from vicuna.io.log import warning
from vicuna.io.network import is_loopback
from vicuna.io.secrets import Secret, from_environment, redact

OPENAI_URL = "https://api.openai.com/v1"
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 60.0
# A server that asks for more than this is out of quota rather than busy.
MAX_RETRY_AFTER_SECONDS = 300.0
# The longest conversation that is sent: beyond every model's context, so that it would be paid for in vain.
MAX_REQUEST_BYTES = 4 << 20
MAX_ERROR_CHARS = 300
RETRIED_STATUSES = {408, 409, 425, 429}
# Ends of an account rather than of a minute: https://platform.openai.com/docs/guides/error-codes
FINAL_CODES = {"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"}

Sleep = Callable[[float], Awaitable[None]]


class EndpointError(VicunaError):
    """A call that failed for good. `ends_run`: the next call would fail in the same way. `is_refused`: this one would
    fail again however often it is made, because of what it says (a conversation longer than the model takes)."""

    def __init__(self, message: str, *, ends_run: bool = False, is_refused: bool = False) -> None:
        super().__init__(message)
        self.ends_run, self.is_refused = ends_run, is_refused


class SchemaRefused(Exception):
    """The server does not take a JSON schema; ask again without (`Endpoint.takes_schema` is now false)."""


@dataclass(frozen=True)
class Reply:
    """What the model wrote."""

    text: str
    finish_reason: str | None
    usage: Usage


class Endpoint:
    """A model at a base URL. Use as an async context manager.

    Args:
        base_url: up to and including `/v1`.
        timeout_seconds: for one attempt, from its first byte to its last.
        max_retries: attempts after the first, each after a pause.

    Raises:
        UsageError: an address that is not http(s), or no OPENAI_API_KEY for a server that needs one.
    """

    def __init__(
        self, model: str, base_url: str, *, timeout_seconds: float, max_retries: int, sleep: Sleep = sleep
    ) -> None:
        self.model, self.max_retries, self._sleep = model, max_retries, sleep
        self._timeout_seconds = timeout_seconds
        self._openai = require("openai", "eval")
        parts = _check_url(base_url)
        self.shown_url = _shown(parts)
        is_local = is_loopback(parts.hostname or "")
        for part in (parts.password, parts.username):
            if part:
                Secret(unquote(part))
        key = _api_key(parts, self.shown_url, is_local)
        self._client = self._openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key.reveal(),
            max_retries=0,
            timeout=timeout_seconds,
            http_client=http_client(
                self._openai,
                timeout_seconds=timeout_seconds,
                is_local=is_local,
                key=key,
                has_login=parts.username is not None,
            ),
        )
        self.takes_schema = True
        self._has_answered = False
        self._limit_name = "max_tokens"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._client.close()

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float,
        seed: int | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """The model's reply to a conversation, as JSON after `schema` if one is given.

        Args:
            seed: of the sampling; None sends none.

        Raises:
            SchemaRefused: the server does not take a schema.
            EndpointError: refused, longer than `MAX_REQUEST_BYTES`, or still failing after the retries.
        """
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        if size > MAX_REQUEST_BYTES:
            message = f"a conversation of {size:,} bytes is above the limit of {MAX_REQUEST_BYTES:,} and not sent"
            raise EndpointError(f"{message}; shorten its texts or leave the question out", is_refused=True)
        sampling = {"temperature": temperature} if seed is None else {"temperature": temperature, "seed": seed}
        attempt = 0
        while True:
            limit_name = self._limit_name
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await self._ask(messages, {**sampling, limit_name: max_tokens}, schema)
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                text = str(error)
                if schema is not None and ("response_format" in text or "schema" in text):
                    self.takes_schema = False
                    raise SchemaRefused from None
                if limit_name != "max_tokens" or "max_completion_tokens" not in text:
                    raise EndpointError(self._describe(error), is_refused=True) from None
                self._limit_name = "max_completion_tokens"  # OpenAI's reasoning models know only the newer name
            except ReplyRefused as error:
                raise EndpointError(f"{self.shown_url}: {error}", is_refused=True) from None
            except (self._openai.APIError, _MalformedReply, TimeoutError) as error:
                if isinstance(error.__cause__, ReplyRefused):  # some versions of the client wrap it
                    raise EndpointError(f"{self.shown_url}: {error.__cause__}", is_refused=True) from None
                await self._sleep(self._delay(error, attempt))
                attempt += 1

    async def _ask(self, messages: Sequence[Message], settings: dict[str, Any], schema: dict[str, Any] | None) -> Reply:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": _utf8(message.content)} for message in messages],
            **settings,
        }
        if schema is not None:
            definition = {"name": "verdict", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": definition}
        try:
            # The reply as bytes: the client's own types would make an object of every value that a server sends.
            raw = await self._client.chat.completions.with_raw_response.create(**request)
            completion = json.loads(raw.content)
            choice = completion["choices"][0]
            text, finish_reason = choice["message"]["content"], choice.get("finish_reason")
            usage = completion.get("usage") or {}
            if not isinstance(text, str | None) or not isinstance(usage, dict):
                raise TypeError("its reply has no text")
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            said = " ".join(str(error).split())[:MAX_ERROR_CHARS]
            raise _MalformedReply(f"{type(error).__name__}: {said}") from None
        self._has_answered = True
        return Reply(
            text=redact(text or "", has_patterns=False),
            finish_reason=finish_reason if isinstance(finish_reason, str) else None,
            usage=Usage.of_server(usage),
        )

    def _delay(self, error: Exception, attempt: int) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            EndpointError: there is none.
        """
        status = getattr(error, "status_code", None)
        is_unreached = isinstance(error, self._openai.APIConnectionError | _MalformedReply | TimeoutError)
        is_never_reached = is_unreached and not self._has_answered
        is_refused = status is not None and status < 500 and status not in RETRIED_STATUSES
        is_redirect = status is not None and 300 <= status < 400
        is_closed = is_redirect or status in (401, 403, 404) or getattr(error, "code", None) in FINAL_CODES
        if is_refused or is_closed:
            raise EndpointError(self._describe(error), ends_run=is_closed, is_refused=not is_closed) from None
        if attempt >= (min(1, self.max_retries) if is_never_reached else self.max_retries):
            raise EndpointError(self._describe(error), ends_run=is_never_reached) from None
        asked = _retry_after(error)
        if asked is not None and asked > MAX_RETRY_AFTER_SECONDS:
            message = f"{self.shown_url} asks to wait {asked:.0f} s; run the command again then to go on"
            raise EndpointError(message, ends_run=True)
        backoff = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**attempt)
        # Jitter, so that calls refused together are not repeated together:
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        return backoff * random.uniform(0.5, 1.0) if asked is None else asked + random.uniform(0, 0.5 + 0.1 * asked)

    def _describe(self, error: Exception) -> str:
        status = getattr(error, "status_code", None)
        if isinstance(error, self._openai.APITimeoutError | TimeoutError):
            return f"{self.shown_url} did not answer in time; is the model loaded? raise --timeout-seconds"
        if isinstance(error, self._openai.APIConnectionError):
            cause = error.__cause__ or error
            reason = _one_line(str(cause) or type(cause).__name__)
            return f"cannot reach {self.shown_url} ({reason}); start the server or correct --base-url"
        if isinstance(error, _MalformedReply):
            reason = _one_line(str(error))
            return (
                f"{self.shown_url} does not answer like an OpenAI-compatible server ({reason}); it usually ends in /v1"
            )
        if status is not None and 300 <= status < 400:
            return (
                f"{self.shown_url} answered {status}: it sends its callers elsewhere, and no redirect is followed, "
                "since the prompts and the key would go there too; give the final address as --base-url"
            )
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, dict) and body.get("message") else str(error)
        way_out = {
            401: "; set OPENAI_API_KEY to a key of this server",
            403: "; this key may not use the model",
            404: f"; is '{self.model}' a model of this server, and does --base-url end in /v1?",
            429: "; lower --concurrency, or run the command again later",
        }
        return f"{self.shown_url} answered {status}: {_one_line(str(said))}{way_out.get(status or 0, '')}"


class _MalformedReply(Exception):
    """The server answered, but with something else than a chat completion."""


def _check_url(base_url: str) -> SplitResult:
    """The parts of the address.

    Raises:
        UsageError: it is no http(s) address, or holds a character that none may hold.
    """
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        is_address = False
    if not is_address or re.search(r"[\x00-\x20\x7f-\x9f\\]", base_url) or not base_url.isprintable():
        given = repr(redact(base_url))[1:-1]
        raise UsageError(f"--base-url {given}: give an address such as http://127.0.0.1:8000/v1")
    return parts


def _shown(parts: SplitResult) -> str:
    """The address without what may be secret in it: name, password, query."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{'' if parts.port is None else f':{parts.port}'}{parts.path}"


def _api_key(parts: SplitResult, shown_url: str, is_local: bool) -> Secret:
    key = from_environment("OPENAI_API_KEY")
    if not (key.reveal().isascii() and key.reveal().isprintable()):
        raise UsageError("OPENAI_API_KEY holds characters that no HTTP header takes; set it again")
    if parts.hostname == urlsplit(OPENAI_URL).hostname and not key:
        raise UsageError(f"{shown_url} needs a key: set OPENAI_API_KEY, or give the --base-url of another server")
    if key and parts.scheme == "http" and not is_local:
        warning(f"OPENAI_API_KEY is not sent to {shown_url}: that connection is not encrypted")
        return Secret("none")
    return key or Secret("none")  # servers without keys ignore it; the client insists on one


def _one_line(said: str) -> str:
    """What a server or a library says, short and without a secret."""
    return " ".join(redact(said[: 20 * MAX_ERROR_CHARS]).split())[:MAX_ERROR_CHARS]


def _utf8(text: str) -> str:
    """Without half surrogate pairs, which a JSON string can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks for (RFC 9110, section 10.2.3: a number or a date)."""
    response = getattr(error, "response", None)
    value = response.headers.get("retry-after") if response is not None else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
