"""The controller's own routes, what it takes from workers, and its end as a process."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from tests.serve.conftest import JOIN_TOKEN, Cluster, start_cluster
from tests.serve.programs import Program
from vicuna.serve.fleet.protocol import CLOSE_PROTOCOL, CONNECT_PATH, MODEL_HEADER


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


def test_a_controller_ends_well_on_sigterm_and_with_130_on_ctrl_c(start: Callable[..., Program]) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        controller = start("vicuna.serve.controller", "--port", "0", VICUNA_JOIN_TOKEN="x")
        controller.until(controller.has_logged("listening"))
        os.kill(controller.process.pid, number)
        assert controller.process.wait(10) == status
        assert "Traceback" not in controller.log.read_text()
