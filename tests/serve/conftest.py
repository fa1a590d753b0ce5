"""A whole serving stack inside one event loop (real server, real sockets, simulated engines), and as processes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.serve.programs import Program
from vicuna.io.secrets import Secret
from vicuna.serve.controller import create_app, make_server
from vicuna.serve.fleet.dispatch import Fleet
from vicuna.serve.fleet.gateway import Gateway
from vicuna.serve.http_server import listen
from vicuna.serve.worker import Worker, WorkerOptions, open_worker

JOIN_TOKEN = Secret("the join token of these tests")


class Cluster:
    """One controller and its in-process workers."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.workers: dict[asyncio.Task[None], Worker] = {}  # those that have loaded their model
        self.tasks: list[asyncio.Task[None]] = []
        self.http = httpx.AsyncClient(base_url=url, timeout=20, trust_env=False)
        without_proxy: Any = httpx.AsyncClient(trust_env=False)  # Any: openai asks for the client of httpx or of httpx2
        self.openai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=without_proxy)

    async def add_worker(
        self, settings: str = "", *, name: str = "sim", token: Secret = JOIN_TOKEN, **options: Any
    ) -> asyncio.Task[None]:
        """Start a worker with the sim engine and wait until it has joined or failed."""
        known = len(self.fleet.links)
        options = {"model": settings, "model_name": name, "controller": (self.url,), "engine": "sim", **options}

        async def run() -> None:
            async with open_worker(WorkerOptions(**options)) as worker:
                self.workers[task] = worker
                await worker.run(token)

        task = asyncio.create_task(run())
        self.tasks.append(task)
        await self.until(lambda: len(self.fleet.links) > known or task.done())
        return task

    async def kill(self, task: asyncio.Task[None]) -> None:
        """End a worker."""
        task.cancel()
        await asyncio.wait({task})

    async def chat(self, content: str = "hello", *, model: str = "sim", **options: Any) -> Any:
        """One chat completion, greedy unless told otherwise."""
        messages: Any = [{"role": "user", "content": content}]
        options = {"temperature": 0, **options}
        return await self.openai.chat.completions.create(model=model, messages=messages, **options)

    async def post(self, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
        """A request as it is."""
        return await self.http.post(path, json=body)

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    def is_idle(self) -> bool:
        """Whether every slot is free, here and in the engines."""
        return not any(link.num_held or link.streams for link in self.fleet.links) and not any(
            worker.active or worker.engine.is_busy for task, worker in self.workers.items() if not task.done()
        )


@contextlib.asynccontextmanager
async def start_cluster(*, api_keys: Any = (), token_gap_seconds: float = 10.0, **fleet: Any) -> AsyncIterator[Cluster]:
    """A controller that serves in this event loop."""
    gateway = Gateway(Fleet(**fleet), token_gap_seconds=token_gap_seconds)
    app = create_app(gateway, join_token=JOIN_TOKEN, api_keys=list(api_keys), host="127.0.0.1")
    server = make_server(app)
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server._serve([listener]))  # `serve` would take over the signal handlers
        cluster = Cluster(gateway.fleet, f"http://127.0.0.1:{listener.getsockname()[1]}")
        await cluster.until(lambda: server.started)
        try:
            yield cluster
        finally:
            for task in cluster.tasks:
                await cluster.kill(task)
            await cluster.http.aclose()
            await cluster.openai.close()
            server.should_exit = True
            await serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """A controller with one fast worker of model `sim`, shared by the tests of a file that asks for it.

    Such a file runs in one event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
    """
    async with start_cluster() as cluster:
        await cluster.add_worker()
        yield cluster


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs that end with the test."""
    programs: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        folder = tmp_path / str(len(programs))
        folder.mkdir()
        programs.append(Program(folder, *arguments, **environment))
        return programs[-1]

    yield start
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()
