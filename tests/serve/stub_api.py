"""A small OpenAI-compatible server on loopback: real HTTP, a scripted model, and a record of what happened.

The last user message is the script: see `Handler.reply`. Everything else is echoed.
"""

import json
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

RICH_REPLY = """Here is a **short tour**: code, a table and a formula.

```python
def fibonacci(n: int) -> list[int]:
    # The first n numbers, starting from 0.
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]
```

| n | fibonacci(n) | ratio |
| ---: | :--- | ---: |
| 5 | 0, 1, 1, 2, 3 | 1.5 |
| 8 | 0, 1, 1, 2, 3, 5, 8, 13 | 1.625 |

The ratio tends to \\(\\varphi = \\frac{1 + \\sqrt{5}}{2}\\), because

$$F_n = \\frac{\\varphi^n - \\psi^n}{\\sqrt{5}}, \\qquad \\psi = \\frac{1 - \\sqrt{5}}{2}$$

1. It costs $5, not $6.
2. `vector<int>` keeps its brackets.
"""


class StubApi(ThreadingHTTPServer):
    """`with StubApi() as api:` serves on `api.url` until the block ends."""

    daemon_threads = True

    def __init__(self, models: tuple[str, ...] = ("stub-model",), port: int = 0, delay_seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.models = list(models)
        self.delay_seconds = delay_seconds
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.asked = threading.Event()  # a chat request has come
        self.left = threading.Event()  # a client closed its connection while a reply was being written
        self.completed = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "StubApi":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is part of the script, not of the test's output."""


class Handler(BaseHTTPRequestHandler):
    server: StubApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.send_json(
                200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]}
            )
        else:
            self.send_json(404, {"error": {"message": f"no such path {self.path}", "type": "invalid_request_error"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers.get("authorization"))
        self.server.asked.set()
        question = body["messages"][-1]["content"]
        if question == "fail":
            self.send_json(500, {"error": {"message": "the engine died", "type": "server_error"}})
        elif question == "busy":
            self.send_json(429, {"error": {"message": "queue full: 8 waiting"}}, {"retry-after": "3"})
        elif question == "key":
            self.send_json(401, {"error": {"message": "no such key"}})
        elif question == "page":
            self.send_json(400, "<html>proxy</html>")
        elif body["model"] not in self.server.models:
            self.send_json(404, {"error": {"message": f"no model {body['model']}", "code": "model_not_found"}})
        else:
            self.reply(question, body)

    def reply(self, question: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        delay = self.server.delay_seconds
        if question == "slow":
            words, delay = [f"word{number} " for number in range(600)], 0.05
        elif question == "silent":
            words, delay = [""] * 600, 0.05
        elif question in ("cut", "broken"):
            words = ["half ", "an "]
        elif question == "tour":
            words = [RICH_REPLY[start : start + 12] for start in range(0, len(RICH_REPLY), 12)]
        elif question == "nothing":
            words = []
        else:
            turn = sum(message["role"] == "user" for message in body["messages"])
            words = ["reply ", f"{len(self.server.requests)} ", f"in turn {turn} ", "to ", question, " ü\u2028✓"]
        self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for word in words:
            if self.has_left(delay):
                self.server.left.set()
                return
            self.event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        if question == "cut":
            return
        if question == "broken":
            self.event({"error": {"message": "the worker of stub-model died"}})
            return
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 12, "completion_tokens": len(words), "total_tokens": 12 + len(words)}
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.server.completed += 1

    def event(self, value: dict[str, Any]) -> None:
        data = json.dumps({"object": "chat.completion.chunk", "created": int(time.time()), **value}, ensure_ascii=False)
        self.wfile.write(b": keep-alive\n\ndata: " + data.encode() + b"\n\n")
        self.wfile.flush()

    def has_left(self, wait_seconds: float) -> bool:
        """Wait as a slow model would; true as soon as the client hangs up."""
        readable, _, _ = select.select([self.connection], [], [], wait_seconds)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)
