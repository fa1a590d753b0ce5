"""A local OpenAI-compatible server whose replies a test scripts, and small files to judge."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from vicuna.io.jsonl import write_jsonl

Request = dict[str, Any]


@dataclass
class Answered:
    """What the stub sends: a chat completion with `text`, or another status with an error body."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"
    raw: bytes | None = None


class Stub:
    """The server. `reply` is called with each request and its number from 0; `requests` keeps them all."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.reply: Callable[[Request, int], Answered | str] = lambda _request, _number: "[[A]]"
        self.base_url = ""

    def prompts(self) -> list[str]:
        return [request["messages"][1]["content"] for request in self.requests]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    one, lock = Stub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                one.requests.append(request)
                number = len(one.requests) - 1
            answered = one.reply(request, number)
            if isinstance(answered, str):
                answered = Answered(answered)
            self.send_response(answered.status)
            body = answered.raw if answered.raw is not None else json.dumps(_body(answered)).encode()
            for name, value in {**answered.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                pass  # the client was killed

        def log_message(self, format: str, *_: Any) -> None:
            pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        one.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield one
        server.shutdown()


def _body(answered: Answered) -> dict[str, Any]:
    if answered.status != 200:
        return {"error": {"message": "scripted", "type": "x", "code": None, **answered.error}}
    message = {"role": "assistant", "content": answered.text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [{"index": 0, "message": message, "finish_reason": answered.finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"question_id": n, "text": f"Question {n}?", "category": "ab"[n % 2]} for n in range(1, 11)]
    write_jsonl(path, rows)
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    rows = [
        {"question_id": n, "model_id": model, "text": f"{model} says {n}"}
        for model in ("m1", "m2")
        for n in range(1, 11)
    ]
    write_jsonl(path, rows)
    return path
