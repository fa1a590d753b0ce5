"""The one guard, in front of API, page and worker connections: host, origin, key and body of every request.

Before: uvicorn, whose part is `connection`. After: an application that gets requests with the whole of their body, or
WebSockets that ask for themselves. A route that is added to it later is guarded too.
"""

import json
from collections.abc import Sequence
from typing import Any

from vicuna.serve.auth import AsgiApp, Receive, Scope, Send, bearer, is_known
from vicuna.serve.door.bodies import Bodies
from vicuna.serve.door.hosts import Hosts
from vicuna.serve.errors import ClientLeft, InvalidKey, RequestError, error_body

OPEN_PATHS = frozenset({"/healthz"})  # need no key
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})  # of others no body is read


class Guard:
    """ASGI app before another one.

    Worker connections need no API key: they carry a join token, which their own endpoint checks.

    Args:
        host: the address that the server listens on.
        api_keys: hashes of keys, one of which a request must have; none: it needs none.
        allow_host: names that the server answers to besides its own.
    """

    def __init__(
        self, app: AsgiApp, *, host: str, api_keys: Sequence[bytes] = (), allow_host: Sequence[str] = ()
    ) -> None:
        self.app, self.api_keys, self.bodies = app, api_keys, Bodies()
        self.hosts = Hosts(host, allow_host, has_key=bool(api_keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self.hosts.check(scope)
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
                return
            if self.api_keys and scope["path"] not in OPEN_PATHS and not is_known(self.api_keys, bearer(scope)):
                raise InvalidKey("incorrect API key; send one the server knows as 'Authorization: Bearer KEY'")
            if scope["method"] not in BODY_METHODS:
                await self.app(scope, receive, send)
                return
            with self.bodies.weighed() as weight:
                body = await self.bodies.read(scope, receive, weight)
                await self.app(scope, replay(body, receive), send)
        except RequestError as error:
            await refuse(scope, send, error)
        except ClientLeft:
            pass


def replay(body: bytes, receive: Receive) -> Receive:
    """What an application receives of a request whose body has been read: the body in one piece, then what comes."""
    pieces = [body]

    async def receive_again() -> Any:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        return await receive()

    return receive_again


async def refuse(scope: Scope, send: Send, error: RequestError) -> None:
    """Answer with an error, as the API words it; a WebSocket is closed before it is open, which is HTTP 403.

    `detail` is where the page's script looks for the words.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({**error_body(error), "detail": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
