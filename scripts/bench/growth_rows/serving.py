"""Rows of serving: a request by its history, its reply, streams at once, models, workers; the stack in-process."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from growth_rows.inputs import prose, tokenizer_folder, turns
from growth_rows.measuring import Row, Work
from tests.serve.conftest import Cluster, start_cluster
from tests.train.builders import save_llama
from vicuna.conversation import Message
from vicuna.serve.api.schema import ChatRequest, check_fields, read_fields
from vicuna.serve.client.transcript import before_last_question
from vicuna.serve.web.view import view

Ask = Callable[[Cluster, int], Awaitable[object]]


def rows() -> list[Row]:
    """All rows of the room."""
    return [
        Row("request: messages of a body", _body, (500, 2_000, 8_000), "messages"),
        Row("request: history", _served(_history), (248, 992, 3_968), "messages",
            ("verb serve", "route /v1/chat/completions", "engine sim")),
        Row("request: length of a text", _served(_completion), (50_000, 200_000, 800_000), "characters",
            ("route /v1/completions",)),
        Row("request: reply", _served(_reply), (1_000, 4_000, 16_000), "tokens"),
        Row("request: streams one after another", _served(_streams), (48, 192, 768), "streams"),
        Row("request: streams at once", _served(_streams_at_once), (48, 192, 768), "streams"),
        Row("workers that join and are listed", _workers, (8, 32, 128), "workers",
            ("route /worker/connect", "route /workers", "route /healthz")),
        Row("models that are listed", functools.partial(_workers, many_models=True), (8, 32, 128), "models",
            ("route /v1/models", "route /v1/models/{name:path}")),
        Row("native engine: reply", _native, (64, 256, 1_024), "tokens", ("engine native",), time_bound=1.3,
            why="attention reads all earlier tokens"),
        Row("chat page: messages shown", _view, (500, 2_000, 8_000), "messages", ("verb chat",)),
    ]  # fmt: skip


def _body(size: int, _: Path) -> Work:
    body = json.dumps({"model": "sim", "messages": _messages(size)}).encode()
    return lambda: check_fields(read_fields(body, ChatRequest), ChatRequest)


def _messages(size: int) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in turns((size + 1) // 2, 4)[:size]]


def _served(ask: Ask) -> Callable[[int, Path], Work]:
    """A request to a stack that is up: what is measured begins with the request."""

    def prepare(size: int, _: Path) -> Work:
        runner = asyncio.Runner()
        stack = start_cluster()
        cluster = runner.run(stack.__aenter__())
        runner.run(cluster.add_worker("length=100000", max_context=4_000_000))
        runner.run(cluster.chat("hello", max_tokens=8))
        return lambda: (runner.run(_ask(ask, cluster, size)), stack)  # which would end the server if it were forgotten

    return prepare


async def _ask(ask: Ask, cluster: Cluster, size: int) -> None:
    await ask(cluster, size)


async def _history(cluster: Cluster, size: int) -> None:
    answer = await cluster.post({"model": "sim", "messages": _messages(size - 1 + size % 2), "max_tokens": 4})
    assert answer.status_code == 200, answer.text


async def _completion(cluster: Cluster, size: int) -> None:
    answer = await cluster.post({"model": "sim", "prompt": prose(size // 4), "max_tokens": 4}, "/v1/completions")
    assert answer.status_code == 200, answer.text


async def _reply(cluster: Cluster, size: int) -> None:
    stream = await cluster.chat("hello", max_tokens=size, stream=True)
    count = 0
    async for _ in stream:
        count += 1
    assert count > 1


async def _streams(cluster: Cluster, size: int) -> None:
    for _ in range(size):
        await cluster.chat("hello", max_tokens=16)


async def _streams_at_once(cluster: Cluster, size: int) -> None:
    at_once = asyncio.Semaphore(64)

    async def one() -> None:
        async with at_once:
            await cluster.chat("hello", max_tokens=16)

    await asyncio.gather(*(one() for _ in range(size)))


def _workers(size: int, _: Path, *, many_models: bool = False) -> Work:
    async def work() -> None:
        async with start_cluster() as cluster:
            for number in range(size):
                await cluster.add_worker("length=8", name=f"sim{number}" if many_models else "sim")
            for path in ("/workers", "/healthz", "/v1/models"):
                assert (await cluster.http.get(path)).status_code == 200

    return lambda: asyncio.run(work())


def _native(size: int, room: Path) -> Work:
    model = save_llama(room / "model", tokenizer_folder("bytes"), max_position_embeddings=4_096)

    async def run() -> None:
        async with start_cluster() as cluster:
            options: dict[str, Any] = {"engine": "native", "device": "cpu", "template": "chatml", "num_threads": 1}
            await cluster.add_worker(str(model), **options)
            answer = await cluster.post({"model": "sim", "prompt": "a", "max_tokens": size}, "/v1/completions")
            assert answer.status_code == 200, answer.text

    return lambda: asyncio.run(run())


def _view(size: int, _: Path) -> Work:
    messages = [Message(message.role, f"{message.content} <b>`x`</b>") for message in turns(size // 2, 20)]
    return lambda: (view(messages), before_last_question(messages))
