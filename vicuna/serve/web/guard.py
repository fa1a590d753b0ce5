"""The routes of the chat page that are allowed, and what may be sent to them.

Before: `door.guard`, which has checked host and origin and read the body. After: the Gradio app that `layout` builds.
Gradio serves many routes for other kinds of apps: uploads, files, proxies, recordings, code editing. A page that only
chats needs few, so the rest answers 404; what is sent to those is checked by `fields` and made anew. The content policy
keeps the browser from any other host, so that the address of an image in a reply cannot send the conversation there.
"""

import json
import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from vicuna.serve.auth import AsgiApp, Receive, Scope, Send
from vicuna.serve.door.guard import refuse, replay
from vicuna.serve.errors import InvalidRequest, NotFound, RequestError
from vicuna.serve.web.fields import SESSION, Event, checked_end, checked_event, checked_id

READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|user)/?"
    r"|/(assets|static|svelte)/[^\x00-\x1f]*"
    r"|/gradio_api/(queue/data|heartbeat/[A-Za-z0-9_-]{1,64}|startup-events|theme\.css|info/?|app_id/?|token/?|user/?)"
)
EVENTS = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/run/predict/")
ENDS = ("/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/reset/")
MAX_QUERY_BYTES = 200

HEADERS = {
    # Gradio compiles its event code with `new Function` and styles elements inline.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class PageGuard:
    """ASGI app that passes on the allowed requests, with the headers above on every answer.

    Args:
        events: those of the page, by their number.
        check_session: raises a `RequestError` if a session may not begin another event.
    """

    def __init__(self, app: AsgiApp, events: Mapping[int, Event], check_session: Callable[[str], None]) -> None:
        self._app, self._events, self._check_session = app, events, check_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                # What the framework allows other origins is not meant: `door.guard` let none in.
                kept = [item for item in message.get("headers", []) if not item[0].startswith(b"access-control-")]
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        try:
            if scope["method"] in ("GET", "HEAD"):
                _check_reading(scope)
            else:
                body = json.dumps(await self._checked_body(scope, receive)).encode()
                scope = {**scope, "query_string": b"", "headers": _headers(scope, len(body))}
                receive = replay(body, receive)
        except RequestError as error:
            await refuse(scope, send_with_headers, error)
            return
        await self._app(scope, receive, send_with_headers)

    async def _checked_body(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        path = scope["path"]
        if scope["method"] != "POST" or path not in (*EVENTS, *ENDS):
            raise NotFound("this is not a part of the chat page")
        body = (await receive()).get("body", b"")
        if path in ENDS:
            return checked_end(body)
        event = checked_event(body, self._events)
        self._check_session(event["session_hash"])
        return event


def _check_reading(scope: Scope) -> None:
    if not READ.fullmatch(scope["path"]):
        raise NotFound("this is not a part of the chat page")
    query = scope["query_string"]
    if len(query) > MAX_QUERY_BYTES:
        raise InvalidRequest(f"the address has {len(query):,} bytes behind its '?', {MAX_QUERY_BYTES} are taken")
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "session_hash":
            checked_id(value, SESSION)


def _headers(scope: Scope, num_bytes: int) -> list[tuple[bytes, bytes]]:
    """The headers of a request whose body was made anew."""
    old = (b"content-length", b"content-type", b"transfer-encoding", b"content-encoding")
    kept = [item for item in scope["headers"] if item[0] not in old]
    return [*kept, (b"content-type", b"application/json"), (b"content-length", str(num_bytes).encode())]
