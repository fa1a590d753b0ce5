"""The OpenAI-compatible HTTP API: /v1/models, /v1/chat/completions, /v1/completions.

Before: `door.guard` has let the request in and read its body. `schema` checks that. After: `fleet.gateway`, whose
chunks `answer` turns into JSON. The headers of a stream are sent with its first token: until then a failure has its own
HTTP status. A client that leaves cancels its generation.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vicuna.errors import nearest
from vicuna.serve.api.answer import Answer, ChatAnswer, CompletionAnswer, event, model_entry, usage
from vicuna.serve.api.schema import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    RequestOptions,
    check_fields,
    read_fields,
)
from vicuna.serve.auth import Receive, Scope, Send
from vicuna.serve.door.bodies import LARGE_BYTES
from vicuna.serve.errors import ClientLeft, ModelNotFound, RequestError, WrongContentType, error_body
from vicuna.serve.fleet.gateway import Gateway, Generation, Journal
from vicuna.serve.fleet.protocol import MAX_MODEL_NAME, ReplyChunk

T = TypeVar("T")
B = TypeVar("B", bound=GenerationRequest)


class OpenAIAPI:
    """The routes over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.fleet = gateway, gateway.fleet
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        """The routes, for a Starlette application."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.show_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
        ]

    async def list_models(self, _request: Request) -> Response:
        """The models that have a worker now."""
        entries = [model_entry(name, since) for name, since in sorted(self.fleet.models().items())]
        return JSONResponse({"object": "list", "data": entries})

    async def show_model(self, request: Request) -> Response:
        """One of them."""
        name, models = request.path_params["name"], self.fleet.models()
        if name not in models:
            name = name[:MAX_MODEL_NAME]
            raise ModelNotFound(f"the model '{name}' does not exist; {nearest(name, models)}")
        return JSONResponse(model_entry(name, models[name]))

    async def chat(self, request: Request) -> Response:
        """The next message of a chat."""
        body, generation = await self._parse(request, ChatRequest)
        return await self._answer(request, body, generation, ChatAnswer(body.model))

    async def complete(self, request: Request) -> Response:
        """The continuation of a bare prompt."""
        body, generation = await self._parse(request, CompletionRequest)
        return await self._answer(request, body, generation, CompletionAnswer(body.model))

    async def _parse(self, request: Request, kind: type[B]) -> tuple[RequestOptions, Generation]:
        """The checked request. Large ones are checked one at a time, in pieces; in between the streams have a turn."""
        data = await read_body(request)
        if len(data) <= LARGE_BYTES:
            body = check_fields(read_fields(data, kind), kind)
            return body.options(), body.generation()
        async with self._turn:
            await asyncio.sleep(0)
            fields = read_fields(data, kind)
            await asyncio.sleep(0)
            body = check_fields(fields, kind)
            await asyncio.sleep(0)
            return body.options(), body.generation()

    async def _answer(self, request: Request, body: RequestOptions, generation: Generation, answer: Answer) -> Response:
        journal = Journal()
        chunks = self.gateway.stream(generation, journal)
        if not body.stream:
            text, reason = await unless_left(request.receive, _collect(chunks))
            return JSONResponse(answer.whole(text, reason, journal))
        try:
            first = await unless_left(request.receive, anext(chunks))
        except BaseException:
            await chunks.aclose()
            raise
        return EventStream(_events(first, chunks, journal, answer, body.include_usage))


async def _collect(chunks: AsyncGenerator[ReplyChunk, None]) -> tuple[str, str]:
    """The whole text of a reply and its `finish_reason`."""
    parts, reason = [], "stop"
    async with aclosing(chunks):
        async for chunk in chunks:
            parts.append(chunk.text)
            reason = chunk.finish_reason or reason
    return "".join(parts), reason


async def _events(
    first: ReplyChunk, chunks: AsyncGenerator[ReplyChunk, None], journal: Journal, answer: Answer, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The events of a stream. An error after the first byte is an event too; then there is no [DONE]."""
    async with aclosing(chunks):
        if opening := answer.opening():
            yield opening
        try:
            if first.text:
                yield answer.chunk(first.text)
            reason = first.finish_reason
            async for chunk in chunks:
                if chunk.text:
                    yield answer.chunk(chunk.text)
                reason = chunk.finish_reason or reason
        except RequestError as error:
            yield event(error_body(error))
            return
        yield answer.closing(reason, journal)
        if include_usage:
            yield event({**answer.head(), "choices": [], "usage": usage(journal)})
        yield b"data: [DONE]\n\n"


class EventStream(Response):
    """Server-sent events, until they end or the client leaves."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self.events = events

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_left(receive, self._send(send))
        except (ClientLeft, OSError):
            pass

    async def _send(self, send: Send) -> None:
        async with aclosing(self.events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for body in events:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client disconnects first.

    Raises:
        ClientLeft: it did.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_until_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.wait({task, left})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request) -> bytes:
    """The body, if it is declared as JSON.

    Raises:
        WrongContentType: it is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongContentType(f"the content type is '{kind[:100]}'; send 'Content-Type: application/json'")
    return await request.body()


async def on_request_error(_request: Request, error: Exception) -> Response:
    """A `RequestError` as an HTTP answer."""
    assert isinstance(error, RequestError)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


async def on_client_left(_request: Request, _error: Exception) -> Response:
    """No one reads this answer; 499 is nginx's number for a client that has left."""
    return Response(status_code=499)


ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]
EXCEPTION_HANDLERS: dict[Any, ErrorHandler] = {RequestError: on_request_error, ClientLeft: on_client_left}
