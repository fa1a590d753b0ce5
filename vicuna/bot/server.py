"""A `vicuna serve` process under a chain: started, waited for, one of its workers killed, stopped.

Only public interfaces are used: the command line, the HTTP API and signals.
"""

import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vicuna.errors import VicunaError
from vicuna.io.files import open_in_folder
from vicuna.serve import processes

START_SECONDS = 180.0
# In float32 a continued reply is word for word the one that was cut; in bfloat16 it may differ.
FLAGS = ("--no-web", "--dtype", "float32", "--max-slots", "8", "--max-context", "1024")


class Server:
    """A running `vicuna serve`; a context manager.

    Attributes:
        base_url: where its OpenAI-compatible API is.
    """

    def __init__(self, models: dict[str, Path], log_path: Path) -> None:
        self.models, self.log_path = models, log_path
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        served = [f"{name}={path}" for name, path in self.models.items()]
        arguments = [argument for model in served for argument in ("--model", model)]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.unlink(missing_ok=True)
        with open_in_folder(self.log_path, "xb") as log_file:
            self._process = processes.spawn(
                [sys.executable, "-m", "vicuna", "serve", *arguments, *FLAGS, "--port", str(self.port)],
                processes.child_environment(),
                stdout=log_file,
                stderr=log_file,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._process.poll() is None:
            processes.stop([self._process], grace_seconds=20)

    def workers(self, model: str) -> list[dict[str, Any]]:
        """The live workers of a model, as the controller lists them."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own address: no proxy
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/workers", timeout=5) as reply:
                listed = json.load(reply)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return []
        return [worker for worker in listed["workers"] if worker["model"] == model]

    def kill_worker(self, model: str) -> int:
        """Kill the worker process of a model with SIGKILL, and return its process id."""
        pid = int(self.workers(model)[0]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_replacement(self, model: str, killed_pid: int) -> int:
        """The process id of the worker that took the killed one's place."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for worker in self.workers(model):
                if worker["pid"] != killed_pid:
                    return int(worker["pid"])
            time.sleep(0.2)
        raise VicunaError(f"no worker replaced process {killed_pid}; see {self.log_path}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                last = self.log_path.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["(nothing)"]
                raise VicunaError(f"vicuna serve ended while starting: {last[0]}; see {self.log_path}")
            if all(self.workers(name) for name in self.models):
                return
            time.sleep(0.2)
        raise VicunaError(f"vicuna serve was not ready after {START_SECONDS:.0f} s; see {self.log_path}")


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
