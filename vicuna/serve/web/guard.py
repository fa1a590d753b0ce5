"""The allowed routes of the chat page, and the hosts that the browser may ask for it.

Before: uvicorn. After: the Gradio app that `layout` builds. Gradio serves many routes for other kinds of apps: uploads,
files, proxies, recordings, code editing. A page that only chats needs few, so the rest answers 404. The content policy
keeps the browser from any other host, so that the address of an image in a reply cannot send the conversation there.
"""

import re
from collections.abc import MutableMapping
from typing import Any

from vicuna.serve.auth import AsgiApp, Receive, Scope, Send

MAX_BODY_BYTES = 4 * 2**20

ALLOWED = {
    "GET": re.compile(
        r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|user)/?"
        r"|/(assets|static|svelte)/.*"
        r"|/gradio_api/(queue/data|heartbeat/[^/]*|startup-events|theme\.css|info/?|app_id/?|token/?|user/?)"
    ),
    "POST": re.compile(r"/gradio_api/(queue/join|run/[^/]+/?|cancel|reset/?)"),
}

HEADERS = {
    # Gradio compiles its event code with `new Function` and styles elements inline.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class PageGuard:
    """ASGI app that passes on the allowed requests, with the headers above on every answer."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        allowed = ALLOWED.get(method)
        if allowed is None or not allowed.fullmatch(scope["path"]):
            await _answer(send_with_headers, 404, b"not a part of the chat page\n")
        elif _body_size_bytes(scope) > MAX_BODY_BYTES:
            await _answer(send_with_headers, 413, b"the conversation is too long to send\n")
        else:
            await self._app(scope, receive, send_with_headers)


def _body_size_bytes(scope: Scope) -> int:
    """The announced size of the body; a body sent in chunks announces none and counts as endless."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return MAX_BODY_BYTES + 1
    size = headers.get(b"content-length", b"0")
    return int(size) if size.isdigit() else MAX_BODY_BYTES + 1


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
