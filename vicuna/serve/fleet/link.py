"""The controller's end of one worker's connection: what the worker is, and the streams that run on it.

Before: `gateway` opens a stream. After: frames over the socket, which `controller` pumps: it sends what is in
`outgoing` and hands what arrives to `deliver`. The link itself does no I/O, so tests drive it without a network.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vicuna.serve.fleet.protocol import (
    Accepted,
    Cancel,
    Frame,
    FromWorker,
    Hello,
    Ping,
    Pong,
    Refused,
    ReplyChunk,
    ReplyChunks,
    Submit,
)

SUSPECT_SECONDS = 3.0  # without a sign of life the worker gets no new requests
DEAD_SECONDS = 10.0  # without one for so long its connection is closed, and its streams move


class WorkerLost(Exception):
    """The worker behind a stream is gone. Internal to the gateway: clients see a stream that goes on."""


Event = Accepted | ReplyChunk | Refused | WorkerLost


class WorkerLink:
    """A connected worker."""

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.model, self.fingerprint, self.max_slots = hello.model, hello.fingerprint, hello.max_slots
        self.is_open = True
        self.close_code = 1000
        self.outgoing: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.streams: dict[str, asyncio.Queue[Event]] = {}
        self.num_held = 0  # slots our own requests hold
        self.num_others = len(hello.running)  # slots that other controllers' requests hold, as the worker last said
        self.tokens_per_second = 0.0  # of one stream, moving average
        self.last_heard = self.last_used = self.joined = time.monotonic()
        self._last_chunk: dict[str, float] = {}  # request id: when its latest chunk came

    @property
    def is_healthy(self) -> bool:
        """Whether it was heard of lately."""
        return self.is_open and time.monotonic() - self.last_heard < SUSPECT_SECONDS

    @property
    def num_free(self) -> int:
        """Slots left, as far as is known here; a worker that knows better refuses with `busy`."""
        return self.max_slots - self.num_held - self.num_others

    @property
    def load(self) -> float:
        """The share of its slots that is taken, 0 to 1."""
        return (self.num_held + self.num_others) / self.max_slots

    @asynccontextmanager
    async def stream(self, submit: Submit) -> AsyncIterator[asyncio.Queue[Event]]:
        """Submit a request and get its events; leaving early cancels it on the worker."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        self.streams[submit.request_id] = events
        self.last_used = time.monotonic()
        self.outgoing.put_nowait(submit)
        if not self.is_open:
            events.put_nowait(WorkerLost())
        try:
            yield events
        finally:
            self._last_chunk.pop(submit.request_id, None)
            if self.streams.pop(submit.request_id, None) is not None:
                self.outgoing.put_nowait(Cancel(request_id=submit.request_id))

    def deliver(self, frame: FromWorker) -> None:
        """Hand a frame to the stream it belongs to. Frames of streams that ended meanwhile are dropped."""
        self.last_heard = time.monotonic()
        match frame:
            case Pong():
                self.num_others = frame.num_others
            case ReplyChunks():
                for chunk in frame.steps:
                    self._measure_speed(chunk)
                    self._put(chunk, is_last=chunk.finish_reason is not None)
            case Accepted():
                self._put(frame)
            case Refused():
                if frame.code == "busy":
                    self.num_others = self.max_slots  # until the next pong knows better
                self._put(frame, is_last=True)
            case Hello():
                raise ValueError("a second hello")

    def close(self, code: int = 1000) -> None:
        """Take no more requests and let go of the running ones; the socket is closed with `code`."""
        if not self.is_open:
            return
        self.is_open, self.close_code = False, code
        self.outgoing.put_nowait(None)
        for events in self.streams.values():
            events.put_nowait(WorkerLost())

    def ping(self) -> None:
        """Ask for a sign of life, and close the link if there was none for too long."""
        if time.monotonic() - self.last_heard > DEAD_SECONDS:
            self.close()
        else:
            self.outgoing.put_nowait(Ping())

    def _put(self, event: Accepted | ReplyChunk | Refused, is_last: bool = False) -> None:
        events = self.streams.get(event.request_id)
        if events is None:
            return
        events.put_nowait(event)
        if is_last:
            del self.streams[event.request_id]  # nothing is left to cancel

    def _measure_speed(self, chunk: ReplyChunk) -> None:
        now = time.monotonic()
        before = self._last_chunk.get(chunk.request_id)
        if chunk.request_id in self.streams:
            self._last_chunk[chunk.request_id] = now
        if before is not None and chunk.token_ids and now > before:
            self.tokens_per_second += 0.05 * (len(chunk.token_ids) / (now - before) - self.tokens_per_second)
