"""Commands as processes of their own, with what they printed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


SLOW = "speed=100,length=150"


class Program:
    """A running command and what it printed."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.output, self.log = folder / "stdout", folder / "stderr"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VICUNA_")}
        with self.output.open("w") as output, self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=log,
                env={**clean, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )
        self.url = ""

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait until `condition` gives something true."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return result

    def has_logged(self, words: str, times: int = 1) -> Callable[[], bool]:
        """The condition that `words` stand in the log so many times."""
        return lambda: self.log.read_text().count(words) >= times

    def wait_until_ready(self) -> None:
        """Wait for the announcement and read the address from it."""
        self.until(lambda: "ready after" in self.output.read_text() or self.process.poll() is not None)
        [line] = [line for line in self.output.read_text().splitlines() if line.startswith("API:")]
        self.url = line.split()[1].removesuffix("/v1")

    def workers(self) -> list[dict[str, Any]]:
        """The rows of /workers."""
        rows: list[dict[str, Any]] = httpx.get(f"{self.url}/workers", trust_env=False).json()["workers"]
        return rows

    def descendants(self) -> list[int]:
        """The pids of the children."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def text(self, on_piece: Callable[[str], None] | None = None) -> str:
        """A streamed reply; `on_piece` sees the text so far."""
        text = ""
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": "a", "messages": messages, "temperature": 0, "stream": True}
        url = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=30, trust_env=False) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    assert "error" not in event, event
                    for choice in event["choices"]:
                        text += choice["delta"].get("content", "")
                    if on_piece:
                        on_piece(text)
        return text


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
