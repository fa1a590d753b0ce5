"""Which worker gets a request: the soft state of the connected workers, and the queue of each model.

Before: `gateway` asks for a slot. After: `link`, one for each worker. All of it is memory: a controller that restarts
learns everything again from the workers' first frames.
"""

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vicuna.errors import nearest
from vicuna.serve.errors import ModelNotFound, NoWorker, QueueFull
from vicuna.serve.fleet.link import WorkerLink

POLL_SECONDS = 0.25
MAX_MODELS = 1_000  # that were ever served; each is remembered


@dataclass
class Waiter:
    """A request without a slot yet. With a fingerprint, only workers that have it will do."""

    fingerprint: str | None
    slot: asyncio.Future[WorkerLink] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Fleet:
    """The workers of this controller.

    Args:
        max_queue: requests per model that may wait for a slot.
        queue_seconds: how long one waits for a slot while workers are there but full.
        replacement_seconds: how long one waits while no worker is there that could take it.
        expected: models whose workers will come; requests for them wait instead of failing as unknown.
    """

    def __init__(
        self,
        *,
        max_queue: int = 256,
        queue_seconds: float = 300.0,
        replacement_seconds: float = 60.0,
        expected: Iterable[str] = (),
    ) -> None:
        self.max_queue, self.queue_seconds, self.replacement_seconds = max_queue, queue_seconds, replacement_seconds
        self.links: list[WorkerLink] = []
        self.known: dict[str, float] = {name: time.time() for name in expected}  # model: when first heard of
        self.waiting: defaultdict[str, deque[Waiter]] = defaultdict(deque)
        self.hold_seconds: defaultdict[str, float] = defaultdict(lambda: 5.0)  # how long a slot is held, moving average

    def join(self, link: WorkerLink) -> None:
        """A worker is connected."""
        self.links.append(link)
        self.known.setdefault(link.model, time.time())
        self.wake(link.model)

    def may_know(self, model: str) -> bool:
        """Whether there is room for this model."""
        return model in self.known or len(self.known) < MAX_MODELS

    def leave(self, link: WorkerLink) -> None:
        """A worker is gone; its streams learn it from the link."""
        self.links.remove(link)

    def alive(self, model: str, fingerprint: str | None = None) -> list[WorkerLink]:
        """The connected workers that could serve this."""
        return [
            link
            for link in self.links
            if link.model == model and link.is_open and fingerprint in (None, link.fingerprint)
        ]

    def models(self) -> dict[str, float]:
        """The models that have a worker now, and when each was first heard of (seconds since the epoch)."""
        return {name: since for name, since in self.known.items() if self.alive(name)}

    @asynccontextmanager
    async def slot(self, model: str, fingerprint: str | None = None) -> AsyncIterator[WorkerLink]:
        """Hold a slot of the least loaded worker, waiting for one if need be; it is free again however this ends.

        Raises:
            ModelNotFound: nobody ever served this model.
            QueueFull: too many wait already, or this waited too long.
            NoWorker: no worker came that could take it.
        """
        if model not in self.known:
            raise ModelNotFound(f"the model '{model}' does not exist; {nearest(model, self.known)}")
        link = await self._acquire(model, fingerprint)
        began = time.monotonic()
        try:
            yield link
        finally:
            link.num_held -= 1
            self.hold_seconds[model] += 0.1 * (time.monotonic() - began - self.hold_seconds[model])
            self.wake(model)

    async def _acquire(self, model: str, fingerprint: str | None) -> WorkerLink:
        queue = self.waiting[model]
        is_continuation = fingerprint is not None
        if (is_continuation or not queue) and (link := self._choose(model, fingerprint)):
            link.num_held += 1
            return link
        if len(queue) >= self.max_queue and not is_continuation:
            raise QueueFull(f"{len(queue)} requests wait for model '{model}' already", self._retry_after(model))
        waiter = Waiter(fingerprint)
        # A stream that was cut goes before those that have not begun.
        queue.appendleft(waiter) if is_continuation else queue.append(waiter)
        try:
            return await self._wait(model, waiter)
        except BaseException:
            if waiter.slot.done() and not waiter.slot.cancelled():  # given in the same instant as we gave up
                waiter.slot.result().num_held -= 1
            raise
        finally:
            if waiter in queue:
                queue.remove(waiter)
            self.wake(model)

    async def _wait(self, model: str, waiter: Waiter) -> WorkerLink:
        began = absent_since = time.monotonic()
        while True:
            self.wake(model)
            done, _ = await asyncio.wait({waiter.slot}, timeout=POLL_SECONDS)
            if done:
                return waiter.slot.result()
            now = time.monotonic()
            if self.alive(model, waiter.fingerprint):
                absent_since = now
            elif now - absent_since >= self.replacement_seconds:
                which = "with the same weights and settings " if waiter.fingerprint else ""
                raise NoWorker(
                    f"no worker of model '{model}' {which}came within {self.replacement_seconds:g} s",
                    self._retry_after(model),
                )
            if now - began >= self.queue_seconds:
                raise QueueFull(
                    f"no slot of model '{model}' was free for {now - began:.0f} s", self._retry_after(model)
                )

    def wake(self, model: str) -> None:
        """Give free slots to those who wait, first come first served."""
        queue = self.waiting[model]
        for waiter in list(queue):
            if link := self._choose(model, waiter.fingerprint):
                link.num_held += 1
                waiter.slot.set_result(link)
                queue.remove(waiter)

    def _choose(self, model: str, fingerprint: str | None) -> WorkerLink | None:
        """The least loaded healthy worker with a free slot; among equals the fastest, then the one idle longest."""
        free = [link for link in self.alive(model, fingerprint) if link.is_healthy and link.num_free > 0]
        return min(free, key=lambda link: (link.load, -round(link.tokens_per_second), link.last_used), default=None)

    def _retry_after(self, model: str) -> int:
        """An estimate of the seconds until those who wait now have been served."""
        slots = sum(link.max_slots for link in self.alive(model))
        if not slots:
            return math.ceil(self.replacement_seconds / 4)
        return max(1, math.ceil(self.hold_seconds[model] * (len(self.waiting[model]) + 1) / slots))
