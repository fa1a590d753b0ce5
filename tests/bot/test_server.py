"""A `vicuna serve` process: its workers as the controller lists them, one of them killed, a start that fails."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from vicuna.bot.server import Server
from vicuna.errors import VicunaError


@pytest.fixture
def listed() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A controller's port, and the workers that it lists at `/workers`."""
    workers: list[dict[str, Any]] = []

    class Controller(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/workers" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"workers": workers}).encode())

        def log_message(self, format: str, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Controller) as controller:
        threading.Thread(target=controller.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield controller.server_address[1], workers
        controller.shutdown()


def test_a_worker_of_the_model_is_killed_and_its_replacement_found(
    listed: tuple[int, list[dict[str, Any]]], tmp_path: Path
) -> None:
    server = Server({"m": tmp_path}, tmp_path / "log")
    server.port, workers = listed
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    workers += [{"model": "other", "pid": 1}, {"model": "m", "pid": process.pid}]
    assert [worker["pid"] for worker in server.workers("m")] == [process.pid]
    assert server.kill_worker("m") == process.pid
    assert process.wait(timeout=10) == -9
    workers.append({"model": "m", "pid": 2})
    assert server.wait_for_replacement("m", process.pid) == 2


def test_without_a_controller_there_are_no_workers(tmp_path: Path) -> None:
    assert Server({"m": tmp_path}, tmp_path / "log").workers("m") == []


def test_a_start_that_fails_names_the_reason_and_the_log(tmp_path: Path) -> None:
    with (
        pytest.raises(VicunaError, match=r"vicuna serve ended while starting: error: .*missing.*; see .*log"),
        Server({"m": tmp_path / "missing"}, tmp_path / "log"),
    ):
        pass
