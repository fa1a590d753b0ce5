"""A worker's choices, and its end as a process."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import start_cluster
from tests.serve.programs import Program
from vicuna.errors import UsageError, VicunaError
from vicuna.serve.engines.sim import ByteTokenizer
from vicuna.serve.fleet.protocol import Submit
from vicuna.serve.worker import WorkerOptions, choose_template


def test_a_worker_s_name_and_template(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model = str(tmp_path)
    with pytest.raises(VicunaError, match="give --template NAME"):
        choose_template(WorkerOptions(model=model), tokenizer)
    assert choose_template(WorkerOptions(model=model, template="alpaca"), tokenizer).name == "alpaca"
    (tmp_path / "vicuna_template.json").write_text('{"template": "vicuna_v1.1"}')
    assert choose_template(WorkerOptions(model=model), tokenizer).name == "vicuna_v1.1"
    with pytest.raises(UsageError, match=r"was trained with 'vicuna_v1.1'; leave the flag out"):
        choose_template(WorkerOptions(model=model, template="alpaca"), tokenizer)


def test_a_worker_ends_well_on_sigterm_and_with_130_on_ctrl_c(start: Callable[..., Program]) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        flags = ["--engine", "sim", "--model", "a", "--controller", "http://127.0.0.1:1"]
        worker = start("vicuna.serve.worker", *flags, VICUNA_JOIN_TOKEN="x")
        worker.until(worker.has_logged("dialling again"))
        os.kill(worker.process.pid, number)
        assert worker.process.wait(10) == status
        assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "ftp://x", "http://"])
def test_a_controller_address_that_is_none(start: Callable[..., Program], url: str) -> None:
    flags = ["--engine", "sim", "--model", "a", "--controller", url]
    worker = start("vicuna.serve.worker", *flags, VICUNA_JOIN_TOKEN="x")
    assert worker.process.wait(10) == 2
    assert worker.log.read_text() == f"error: --controller {url}: give a URL such as http://127.0.0.1:8000\n"


async def test_a_prompt_that_takes_long_keeps_nobody_from_the_worker() -> None:
    async with start_cluster() as cluster:
        task = await cluster.add_worker(max_slots=2)
        worker, [link] = cluster.workers[task], cluster.fleet.links
        begun, may_end = threading.Event(), threading.Event()
        own = worker.prompts._ids

        def slow(submit: Submit) -> list[int]:
            begun.set()
            may_end.wait(20)
            return own(submit)

        worker.prompts._ids = slow  # type: ignore[method-assign]
        first = asyncio.create_task(cluster.chat("one"))
        await cluster.until(begun.is_set)
        heard = link.last_heard
        link.ping()
        await cluster.until(lambda: link.last_heard > heard)  # pings are answered meanwhile
        second = asyncio.create_task(cluster.chat("two"))
        await cluster.until(lambda: worker._num_taken() == 2)  # both have their slot
        second.cancel()
        await cluster.until(lambda: worker._num_taken() == 1)  # and one that leaves gives it back
        may_end.set()
        assert (await first).choices[0].message.content
        await cluster.until(cluster.is_idle)
        assert worker._num_taken() == 0 and cluster.fleet.links == [link]


async def test_a_request_that_breaks_the_worker_s_code_costs_that_request_only() -> None:
    async with start_cluster() as cluster:
        task = await cluster.add_worker()
        worker, [link] = cluster.workers[task], cluster.fleet.links
        own, worker.stop_ids = worker.stop_ids, None  # type: ignore[assignment]
        whole = worker._submit

        async def broken(*_: object) -> None:
            raise RuntimeError("a mistake of ours")

        worker._submit = broken  # type: ignore[method-assign,assignment]
        answer = await cluster.post({"model": "sim", "messages": [{"role": "user", "content": "x"}]})
        assert answer.status_code == 400 and "cannot begin this request" in answer.json()["error"]["message"]
        worker._submit, worker.stop_ids = whole, own  # type: ignore[method-assign]
        assert (await cluster.chat()).choices[0].message.content
        assert cluster.fleet.links == [link]


async def test_thousands_of_messages_of_one_letter_end_no_worker() -> None:
    messages = [{"role": ("user", "assistant")[turn % 2], "content": "a"} for turn in range(12_001)]
    async with start_cluster() as cluster:
        await cluster.add_worker()
        for count in (12_001, 9_999, 4_095, 2_001):
            answer = await cluster.post({"model": "sim", "messages": messages[:count]})
            assert answer.status_code == 400 and answer.json()["error"]["param"] == "messages"
        assert (await cluster.chat()).choices[0].message.content
        assert len(cluster.fleet.links) == 1
