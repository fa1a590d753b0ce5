"""The HTTP client beneath an endpoint: it sends what is named here, takes what is bounded here, and follows nowhere.

Made by `endpoint`, driven by the `openai` client. That client would add headers that the environment names
(organizations, projects, headers of the user's own) for whichever server it is pointed at, follow a redirect with the
prompts and the key, and read a reply of any size. Here the headers are an allow-list, a redirect is an error, and a
reply is read up to `MAX_REPLY_BYTES`, compressed or not.
"""

import functools
import zlib
from collections.abc import AsyncIterator
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io.secrets import Secret

# What a request says about itself; nothing of the environment's, nothing about this machine.
SENT_HEADERS = {
    "host",
    "connection",
    "content-length",
    "content-type",
    "accept",
    "accept-encoding",
    "user-agent",
    "authorization",
    "x-stainless-raw-response",  # by which the client remembers what it was asked for
}
# The longest reply, unpacked. A judge's verdict has a few kilobytes, an answer of 32,000 tokens about 200.
MAX_REPLY_BYTES = 4 << 20
MAX_REPLY_HEADERS = 200


class ReplyRefused(VicunaError):
    """A reply that is not read any further."""


def http_client(openai: Any, *, timeout_seconds: float, is_local: bool, key: Secret, has_login: bool) -> Any:
    """The `httpx` client for one server.

    Args:
        is_local: the server is on this machine; a proxy of the environment is for the world outside.
        key: sent as the bearer token, and nowhere else.
        has_login: the address holds a name and a password, which take the key's place.
    """

    async def send_what_is_named(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in SENT_HEADERS]:
            del request.headers[name]
        request.headers["accept-encoding"] = "identity"
        if not has_login:
            request.headers["authorization"] = f"Bearer {key.reveal()}"

    async def take_what_is_bounded(response: Any) -> None:
        response.stream = _bounded(response)

    return openai.DefaultAsyncHttpxClient(
        timeout=timeout_seconds,
        trust_env=not is_local,
        follow_redirects=False,
        event_hooks={"request": [send_what_is_named], "response": [take_what_is_bounded]},
    )


def _bounded(response: Any) -> Any:
    """The body of a response as a stream that ends with an error at the limit.

    Raises:
        ReplyRefused: too many headers, an announced size above the limit, a packing that was not asked for.
    """
    headers = response.headers
    if len(headers.raw) > MAX_REPLY_HEADERS:
        raise ReplyRefused(f"its reply has {len(headers.raw)} headers, above the limit of {MAX_REPLY_HEADERS}")
    size = headers.get("content-length", "")
    if size.isdecimal() and (len(size) > 18 or int(size) > MAX_REPLY_BYTES):
        raise ReplyRefused(f"its reply has {size[:24]} bytes, above the limit of {MAX_REPLY_BYTES}")
    packing = headers.get("content-encoding", "identity").strip().lower()
    unpack = None
    if packing in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif packing != "identity":
        raise ReplyRefused(f"its reply is packed as {packing[:40]}, which was not asked for")
    headers.pop("content-encoding", None)
    kind: Any = type(response.stream)
    return _stream_class(kind)(response.stream, unpack)


@functools.cache
def _stream_class(kind: type) -> Any:
    # The client looks for this class of its own httpx, which is not installed under the same name everywhere.
    base = next(one for one in kind.__mro__ if one.__name__ == "AsyncByteStream")

    class Bounded(base):  # type: ignore[valid-type, misc]
        """The chunks of a body, unpacked, up to the limit."""

        def __init__(self, stream: Any, unpack: Any) -> None:
            self._stream, self._unpack = stream, unpack

        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = MAX_REPLY_BYTES
            async for chunk in self._stream:
                if self._unpack is not None:
                    try:
                        # Never more than one byte above the limit is unpacked, whatever the ratio.
                        chunk = self._unpack.decompress(chunk, left + 1)
                    except zlib.error as error:
                        raise ReplyRefused(f"its reply is not packed as it says ({error})") from None
                left -= len(chunk)
                if left < 0:
                    raise ReplyRefused(f"its reply is longer than the limit of {MAX_REPLY_BYTES} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded
