"""The controller's own routes, what it takes from workers, and its end as a process."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from tests.serve.conftest import JOIN_TOKEN, Cluster, start_cluster
from tests.serve.programs import Program
from vicuna.serve import controller
from vicuna.serve.fleet import dispatch
from vicuna.serve.fleet.protocol import CLOSE_FULL, CLOSE_PROTOCOL, CONNECT_PATH, MODEL_HEADER


@pytest.mark.asyncio(loop_scope="module")
async def test_workers_tell_their_process(cluster: Cluster) -> None:
    [row] = (await cluster.http.get("/workers")).json()["workers"]
    assert row["model"] == "sim" and row["pid"] == os.getpid() and row["healthy"]


@pytest.mark.parametrize(
    "frames",
    [
        ["no json"],
        ['{"type": "pong", "num_others": 0}'],
        [b"\x80\x04."],
        ['{"type": "hello", "version": 99}'],
        ['{"type":"hello","version":1,"worker_id":"w","host":"h","pid":1,"model":"other","fingerprint":"f",'
         '"engine":"e","template":"t","context_size":1,"max_slots":1}'],
        ['{"type":"hello","version":1,"worker_id":"w","host":"h","pid":1,"model":"sim","fingerprint":"f",'
         '"engine":"e","template":"t","context_size":1,"max_slots":1}', '{"type": "surprise"}'],
    ],
)  # fmt: skip
async def test_frames_that_are_not_the_protocol_end_the_connection_only(frames: list[Any]) -> None:
    headers = {"Authorization": f"Bearer {JOIN_TOKEN.reveal()}", MODEL_HEADER: "sim"}
    async with start_cluster() as cluster:
        await cluster.add_worker()
        await send_frames(cluster, frames, headers)
        await cluster.until(lambda: len(cluster.fleet.links) == 1)
        assert (await cluster.chat()).choices[0].message.content


async def send_frames(cluster: Cluster, frames: list[Any], headers: dict[str, str]) -> None:
    address = cluster.url.replace("http", "ws") + CONNECT_PATH
    async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
        for frame in frames:
            await socket.send(frame)
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    await socket.recv()
        assert socket.close_code == CLOSE_PROTOCOL


HELLO = (
    '{"type":"hello","version":1,"worker_id":"w","host":"h","pid":1,"model":"%s","fingerprint":"f",'
    '"engine":"e","template":"t","context_size":9,"max_slots":1%s}'
)


@pytest.mark.parametrize("limit", ["MAX_WORKERS", "MAX_MODELS", "MAX_HELLO_BYTES"])
async def test_so_many_workers_and_models_and_no_more(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(dispatch if limit == "MAX_MODELS" else controller, limit, 1)
    headers = {"Authorization": f"Bearer {JOIN_TOKEN.reveal()}", MODEL_HEADER: "other"}
    async with start_cluster(expected=["sim"]) as cluster:
        address = cluster.url.replace("http", "ws") + CONNECT_PATH
        if limit == "MAX_WORKERS":
            await cluster.add_worker()
        async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
            await socket.send(HELLO % ("other", ""))
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == (CLOSE_PROTOCOL if limit == "MAX_HELLO_BYTES" else CLOSE_FULL)


@pytest.mark.parametrize(
    "steps",
    [
        '{"request_id":"%s","index":5,"token_ids":[1]}',
        '{"request_id":"%s","index":0,"token_ids":[1,1,1,1,1,1,1,1,1,1]}',
    ],
)
async def test_a_worker_that_writes_what_does_not_follow_is_cut_off(steps: str) -> None:
    headers = {"Authorization": f"Bearer {JOIN_TOKEN.reveal()}", MODEL_HEADER: "sim"}
    async with start_cluster(replacement_seconds=0) as cluster:
        address = cluster.url.replace("http", "ws") + CONNECT_PATH
        async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
            await socket.send(HELLO % ("sim", ""))
            await cluster.until(lambda: cluster.fleet.links)
            asked = asyncio.create_task(cluster.post({"model": "sim", "messages": [{"role": "user", "content": "x"}]}))
            while "submit" not in (frame := await asyncio.wait_for(socket.recv(), 5)):
                pass
            request_id = json.loads(frame)["request_id"]
            await socket.send(json.dumps({"type": "accepted", "request_id": request_id, "prompt_ids": [1]}))
            await socket.send('{"type":"steps","steps":[%s]}' % (steps % request_id))
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == CLOSE_PROTOCOL
            assert (await asked).status_code == 503


def test_refused_workers_fill_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    refusals = controller.Refusals()
    for now in range(100):
        refusals.add("a worker", now / 4)
    assert capsys.readouterr().err.count("refused a worker") == 3


def test_a_controller_ends_well_on_sigterm_and_with_130_on_ctrl_c(start: Callable[..., Program]) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        program = start("vicuna.serve.controller", "--port", "0", VICUNA_JOIN_TOKEN="x")
        program.until(program.has_logged("listening"))
        os.kill(program.process.pid, number)
        assert program.process.wait(10) == status
        assert "Traceback" not in program.log.read_text()
