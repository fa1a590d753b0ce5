"""Bodies of bounded size, and of bounded weight together.

Called by `guard` once a request's head is in order. A body stays in memory for as long as its request is answered, be
it in a queue; so its weight counts until then. What nearly every request weighs is free, so that a few large ones that
come slowly keep nobody out.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from vicuna.serve.auth import Receive, Scope
from vicuna.serve.door.json_shape import check_shape
from vicuna.serve.errors import BodyTooLarge, ClientLeft, InvalidRequest, ServerBusy

MAX_BODY_BYTES = 4 << 20
MAX_WEIGHT_BYTES = 64 << 20  # of all bodies that are being answered, beyond what is free
FREE_BYTES = 128 << 10  # of each
PART_BYTES = 512  # that a part of a parsed body takes: a message of one letter is three parts
LARGE_BYTES = 64 << 10  # from here on one at a time is looked into, and others have their turn in between
RETRY_SECONDS = 1


class Weight:
    """What one request's body weighs, of the `Bodies` it belongs to."""

    def __init__(self, bodies: "Bodies") -> None:
        self._bodies = bodies
        self._num_bytes = 0

    def grow_to(self, num_bytes: int) -> None:
        """It weighs so much now.

        Raises:
            ServerBusy: all together weigh too much.
        """
        counted = max(0, num_bytes - FREE_BYTES)
        others = self._bodies.weight_bytes - self._num_bytes
        if counted > self._num_bytes and others + counted > MAX_WEIGHT_BYTES:
            raise ServerBusy(
                f"requests being answered weigh {others >> 20} MiB, and {MAX_WEIGHT_BYTES >> 20} MiB are taken",
                RETRY_SECONDS,
            )
        self._bodies.weight_bytes, self._num_bytes = others + counted, counted


class Bodies:
    """The bodies of one server that are in memory.

    Attributes:
        weight_bytes: what they weigh beyond what is free.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.max_body_bytes, self.weight_bytes = max_body_bytes, 0
        self._turn = asyncio.Lock()

    @contextmanager
    def weighed(self) -> Iterator[Weight]:
        """The weight of a request's body, nothing at first; it is taken off at the end of the block."""
        weight = Weight(self)
        try:
            yield weight
        finally:
            weight.grow_to(0)

    async def read(self, scope: Scope, receive: Receive, weight: Weight) -> bytes:
        """The whole body, which may be JSON: its nesting and the number of its parts are in order.

        Raises:
            BodyTooLarge, ServerBusy, InvalidRequest: it will not be read.
            ClientLeft: it does not come.
        """
        self._check_size(announced_bytes(scope))
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            body += message.get("body", b"")
            self._check_size(len(body))
            weight.grow_to(len(body))
            if not message.get("more_body", False):
                break
        data = bytes(body)
        if len(data) <= LARGE_BYTES:
            num_parts = check_shape(data)
        else:
            async with self._turn:
                await asyncio.sleep(0)
                num_parts = check_shape(data)
        weight.grow_to(len(data) + PART_BYTES * num_parts)
        return data

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self.max_body_bytes:
            raise BodyTooLarge(
                f"the body has {num_bytes:,} bytes or more, {self.max_body_bytes:,} are taken; send less at once"
            )


def announced_bytes(scope: Scope) -> int:
    """The body's size as the head announces it; 0 where it announces none.

    Raises:
        InvalidRequest: it announces nonsense.
    """
    for key, value in scope["headers"]:
        if key == b"content-length":
            if not value.isdigit() or len(value) > 20:
                raise InvalidRequest("the Content-Length header is not a number")
            return int(value)
    return 0
