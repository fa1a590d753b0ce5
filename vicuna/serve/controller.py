"""The controller: workers dial in here, clients ask here. One process, one port; the OpenAI API is part of it.

Before: `vicuna serve`, or `python -m vicuna.serve.controller` on a machine of its own. After: `api.openai` for clients;
`/worker/connect` for workers. It holds soft state only, so it may be killed and started again at any time.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vicuna.io.jsonl import JsonObject
from vicuna.io.log import info, warning
from vicuna.io.secrets import Secret
from vicuna.options import command, option, parse
from vicuna.serve import auth
from vicuna.serve.api.openai import EXCEPTION_HANDLERS, OpenAIAPI
from vicuna.serve.door.guard import Guard
from vicuna.serve.fleet.dispatch import MAX_MODELS, Fleet
from vicuna.serve.fleet.gateway import Gateway
from vicuna.serve.fleet.link import WorkerLink
from vicuna.serve.fleet.protocol import (
    CLOSE_FULL,
    CLOSE_PROTOCOL,
    CONNECT_PATH,
    FROM_WORKER,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_MODEL_NAME,
    MODEL_HEADER,
    VERSION,
    Hello,
    dump,
)
from vicuna.serve.http_server import Server, listen, server_url, settings
from vicuna.serve.processes import exit_with_parent

PING_SECONDS = 1.0
HELLO_SECONDS = 10.0
MAX_WORKERS = 1_000
REFUSALS_SECONDS = 10.0  # refused workers are logged once in so long, with their number
DESCRIPTION = (
    "The controller: workers dial in here, clients ask here, by the OpenAI API. Workers need VICUNA_JOIN_TOKEN to be "
    "the same secret on both sides; clients a key of VICUNA_API_KEY, where it is set."
)


@dataclass(frozen=True)
class ControllerOptions:
    """Options of `python -m vicuna.serve.controller`."""

    host: str = option("127.0.0.1", help="address to listen on; any but a loopback address needs VICUNA_API_KEY")
    port: int = option(8000, help="port to listen on; 0 takes a free one", aliases=("-p",))
    allow_host: tuple[str, ...] = option(
        (), help="names that the server answers to besides its own, as clients write them", metavar="NAME"
    )
    expect: tuple[str, ...] = option(
        (), help="models whose workers will join: requests for them wait instead of failing as unknown", metavar="MODEL"
    )
    max_queue: int = option(
        256, help="requests per model that may wait for a slot; more get 503 with Retry-After", minimum=0
    )
    queue_seconds: float = option(300.0, help="how long a request waits for a slot while all are taken", minimum=0)
    replacement_seconds: float = option(
        60.0, help="how long a request or a cut stream waits for a new worker", minimum=0
    )
    token_gap_seconds: float = option(30.0, help="a worker silent on a stream for so long counts as hung", minimum=0.1)
    listen_fd: int | None = option(None, help="take over this listening socket instead of host and port")


def create_app(
    gateway: Gateway, *, join_token: Secret, api_keys: Sequence[bytes], host: str, allow_host: Sequence[str] = ()
) -> Guard:
    """The application: API, worker connections, /workers and /healthz."""
    fleet, refusals = gateway.fleet, Refusals()

    async def connect(websocket: WebSocket) -> None:
        model = websocket.headers.get(MODEL_HEADER, "")
        if not auth.may_join(join_token, auth.bearer(websocket.scope), model):
            refusals.add(f"a worker for model '{model[:MAX_MODEL_NAME]}': wrong join token", time.monotonic())
            await websocket.close()  # before `accept` this is HTTP 403
            return
        await websocket.accept()
        await serve_worker(websocket, fleet, model)

    async def show_workers(_request: Request) -> Response:
        return JSONResponse({"workers": [describe_worker(link) for link in fleet.links]})

    async def show_health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{error.detail}: {request.method} {request.url.path[:200]}"
        body = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return JSONResponse({"error": body}, error.status_code, headers=error.headers)

    async def on_crash(_request: Request, _error: Exception) -> Response:
        body = {"message": "the server made a mistake; its log tells more", "type": "server_error"}
        return JSONResponse({"error": {**body, "param": None, "code": "internal_error"}}, 500)

    app = Starlette(
        routes=[
            *OpenAIAPI(gateway).routes(),
            Route("/workers", show_workers),
            Route("/healthz", show_health),
            WebSocketRoute(CONNECT_PATH, connect),
        ],
        exception_handlers={**EXCEPTION_HANDLERS, HTTPException: on_http_error, Exception: on_crash},
    )
    return Guard(app, host=host, api_keys=api_keys, allow_host=allow_host)


def describe_worker(link: WorkerLink) -> JsonObject:
    """A row of /workers, for people and for scripts that look for a worker's process."""
    hello = link.hello
    return {
        "worker_id": hello.worker_id,
        "model": link.model,
        "host": hello.host,
        "pid": hello.pid,
        "engine": hello.engine,
        "template": hello.template,
        "fingerprint": link.fingerprint,
        "context_size": hello.context_size,
        "max_slots": link.max_slots,
        "num_running": link.num_held,
        "num_streams": len(link.streams),
        "tokens_per_second": round(link.tokens_per_second, 1),
        "healthy": link.is_healthy,
        "uptime_seconds": round(time.monotonic() - link.joined, 1),
    }


class Refusals:
    """Workers that were refused, in a log that does not grow by a line for each: a stranger may try any number."""

    def __init__(self) -> None:
        self._num_silent, self._next = 0, 0.0

    def add(self, what: str, now: float) -> None:
        """One was refused at `now`, in seconds of any steady clock."""
        if now < self._next:
            self._num_silent += 1
            return
        others = f" ({self._num_silent} others before)" if self._num_silent else ""
        warning(f"refused {what}{others}")
        self._num_silent, self._next = 0, now + REFUSALS_SECONDS


async def serve_worker(websocket: WebSocket, fleet: Fleet, model: str) -> None:
    """Keep one worker's connection until either side ends it."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            text = await websocket.receive_text()
        if len(text) > MAX_HELLO_BYTES:
            raise ValueError(f"its hello has {len(text):,} characters, {MAX_HELLO_BYTES:,} are taken")
        hello = FROM_WORKER.validate_json(text)
        if not isinstance(hello, Hello) or hello.version != VERSION or hello.model != model:
            raise ValueError(f"expected a hello of version {VERSION} for model '{model}'")
    except (ValidationError, ValueError, TimeoutError, KeyError) as error:
        warning(f"a worker did not say hello: {' '.join(str(error).split())[:200]}")
        await websocket.close(CLOSE_PROTOCOL, f"expected a hello of protocol version {VERSION}")
        return
    except WebSocketDisconnect:
        return
    if len(fleet.links) >= MAX_WORKERS or not fleet.may_know(model):
        warning(
            f"worker {hello.worker_id}: this controller has {MAX_WORKERS:,} workers or {MAX_MODELS:,} models already"
        )
        await websocket.close(CLOSE_FULL, f"this controller takes {MAX_WORKERS} workers of {MAX_MODELS} models")
        return
    link = WorkerLink(hello)
    fleet.join(link)
    info(f"worker {hello.worker_id} joined: model '{model}', pid {hello.pid}, {hello.max_slots} slots")
    jobs = [asyncio.create_task(job) for job in (_read(websocket, link, fleet), _write(websocket, link), _ping(link))]
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        link.close()
        fleet.leave(link)
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        info(f"worker {hello.worker_id} left: model '{model}', pid {hello.pid}")
    with contextlib.suppress(RuntimeError, OSError, TimeoutError, WebSocketDisconnect):  # it may be gone already
        async with asyncio.timeout(1):
            await websocket.close(link.close_code)


async def _read(websocket: WebSocket, link: WorkerLink, fleet: Fleet) -> None:
    try:
        while True:
            link.deliver(FROM_WORKER.validate_json(await websocket.receive_text()))
            if link.num_free > 0 and fleet.waiting[link.model]:
                fleet.wake(link.model)
    except WebSocketDisconnect:
        pass
    except (ValidationError, ValueError, KeyError, AssertionError) as error:
        warning(f"worker {link.hello.worker_id} sent a bad frame: {' '.join(str(error).split())[:200]}")
        link.close(CLOSE_PROTOCOL)


async def _write(websocket: WebSocket, link: WorkerLink) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
        while frame := await link.outgoing.get():
            await websocket.send_text(dump(frame))


async def _ping(link: WorkerLink) -> None:
    while link.is_open:
        link.ping()
        await asyncio.sleep(PING_SECONDS)


def make_server(app: auth.AsgiApp, announce: Callable[[], None] = lambda: None) -> Server:
    """uvicorn with our settings; `announce` is called once requests are answered."""
    config = settings(
        app,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,  # nothing packed: its size would say nothing about what it becomes
        ws_ping_interval=None,  # we have our own, which tells more
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    return Server(config, announce)


@command
def main(argv: list[str] | None = None) -> int:
    """Run a controller until it is told to stop."""
    options = parse(ControllerOptions, argv, prog="python -m vicuna.serve.controller", description=DESCRIPTION)
    exit_with_parent()
    api_keys, join_token = auth.read_api_keys(), auth.read_join_token()
    auth.check_exposure(options.host, api_keys)
    if options.listen_fd is not None:
        listener = socket.socket(fileno=options.listen_fd)
    else:
        listener = listen(options.host, options.port)
    fleet = Fleet(
        max_queue=options.max_queue,
        queue_seconds=options.queue_seconds,
        replacement_seconds=options.replacement_seconds,
        expected=options.expect,
    )
    gateway = Gateway(fleet, token_gap_seconds=options.token_gap_seconds)
    app = create_app(
        gateway, join_token=join_token, api_keys=api_keys, host=options.host, allow_host=options.allow_host
    )
    url = server_url(listener, options.host)
    make_server(app, lambda: info(f"controller: listening on {url}")).run_until_signal(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
