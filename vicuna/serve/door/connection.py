"""The bytes of a connection: as much of a request's head as may be, and as many connections as may be.

Before: a socket. After: uvicorn's own protocol, of which this is a kind, and `guard`. The parser keeps a header until
it is whole, however long it gets, and all headers until the last; so they are counted as they come, and a head that is
too large is answered before the rest of it is read.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10  # request line and headers
MAX_HEADERS = 128
MAX_CONNECTIONS = 4_000
MAX_PIPELINED = 16  # requests of a connection that wait for the one before them
LINGER_SECONDS = 2.0  # the rest of what was refused is read and dropped for so long, so that the answer is seen
TOO_LARGE = (
    431,
    f"the head of the request has more than {MAX_HEAD_BYTES:,} bytes or {MAX_HEADERS} headers; send fewer",
)
NOT_HTTP = (400, "this is not HTTP")
TOO_EAGER = (400, f"more than {MAX_PIPELINED} requests came before their answers were read; send one after the other")
TOO_MANY = (503, f"this server has {MAX_CONNECTIONS:,} connections, which is all it takes; try again later")


class Connection(HttpToolsProtocol):
    """One connection. What it refuses itself is answered in the words of the API; then the connection ends."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._num_pending = 0  # bytes since the last that were not a part of a head or of a chunk's frame
        self._num_head_bytes = self._num_headers = 0
        self._is_refused = False
        self._cut: asyncio.TimerHandle | None = None
        self._answered: Any = None  # the request that is being answered, which need not be the last that came
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(*TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if self._is_refused or self.parser is None or self.transport.is_closing():
                return
            piece = data[start : start + MAX_HEAD_BYTES]
            self._num_pending += len(piece)
            super().data_received(piece)
            if self.transport.get_protocol() is not self:  # it is a WebSocket now
                return
            if self._num_pending > MAX_HEAD_BYTES:
                self._refuse(*TOO_LARGE)

    def on_message_begin(self) -> None:
        self._num_head_bytes = self._num_headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:  # trailers come here too
        self._num_headers += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._num_pending = 0
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(*TOO_EAGER)
            raise ValueError("too many requests at once")  # so that none is read after this one

    def on_body(self, body: bytes) -> None:
        self._num_pending = 0
        if self.cycle.response_complete and self._cut is None:  # answered before it was read
            self._cut = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_pending = 0
        if self._cut is not None and not self._is_refused:
            self._cut.cancel()
            self._cut = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours names the limit
        self._refuse(*(TOO_LARGE if self._is_too_large() else NOT_HTTP))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _count(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._is_too_large():
            raise ValueError("the head is too large")  # ends in send_400_response

    def _is_too_large(self) -> bool:
        return self._num_head_bytes > MAX_HEAD_BYTES or self._num_headers > MAX_HEADERS

    def _refuse(self, status: int, message: str) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
        self.pipeline.clear()
        if not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + head + body)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self._cut = self.loop.call_later(LINGER_SECONDS, self.transport.close)
