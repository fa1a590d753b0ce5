"""The one guard: every route that a server has, asked as a page of somewhere else asks."""

from typing import Any

import pytest

from tests.serve.route_table import routes
from vicuna.io.secrets import Secret
from vicuna.serve.auth import _hash
from vicuna.serve.client.http import ApiClient
from vicuna.serve.controller import create_app
from vicuna.serve.door.guard import Guard
from vicuna.serve.fleet.dispatch import Fleet
from vicuna.serve.fleet.gateway import Gateway

GOOD = ("host", "127.0.0.1:8000")
REBOUND = {
    "a foreign host": [("host", "evil.example:8000")],
    "a foreign host with its own origin": [("host", "evil.example"), ("origin", "http://evil.example")],
    "a foreign origin": [GOOD, ("origin", "http://evil.example")],
    "another port": [GOOD, ("origin", "http://127.0.0.1:9")],
    "no origin to speak of": [GOOD, ("origin", "null")],
    "no host": [],
    "two hosts": [GOOD, ("host", "evil.example")],
    "the same host twice": [GOOD, GOOD],
    "a tag of another page": [GOOD, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
}


async def ask(app: Any, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"{}") -> Any:
    """The status and the headers of an answer, with what the server received of the body; a WebSocket's is 403."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    is_socket = method == "WEBSOCKET"
    scope = {
        "type": "websocket" if is_socket else "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
        "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "scheme": "ws" if is_socket else "http", "headers": raw, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000), "state": {}, "subprotocols": [],
    }  # fmt: skip
    sent: list[Any] = []
    received = [{"type": "websocket.connect"} if is_socket else {"type": "http.request", "body": body}]

    async def receive() -> Any:
        return received.pop() if received else {"type": "websocket.disconnect" if is_socket else "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if is_socket:
        return (403 if sent[0]["type"] == "websocket.close" else 101), {}, len(received) == 0
    return sent[0]["status"], dict(sent[0]["headers"]), len(received) == 0


def servers() -> dict[str, tuple[Guard, list[tuple[str, str]]]]:
    """Every server of ours, with its own route table."""
    found = {}
    for name, keys in (("controller", []), ("controller with a key", [_hash("key")])):
        app = create_app(Gateway(Fleet()), join_token=Secret("a join token"), api_keys=keys, host="127.0.0.1")
        found[name] = app, routes(app.app)
    try:
        import gradio  # noqa: F401
    except ImportError:
        return found
    from vicuna.serve.web.layout import build_app

    page = build_app(ApiClient("http://127.0.0.1:9/v1"), concurrency=2)
    framework: Any = page.app
    return {**found, "page": (page, routes(framework._app))}


SERVERS = servers()


def test_the_tables_hold_the_routes() -> None:
    table = SERVERS["controller"][1]
    assert {("POST", "/v1/chat/completions"), ("GET", "/workers"), ("GET", "/healthz")} <= set(table)
    assert ("WEBSOCKET", "/worker/connect") in table
    if "page" in SERVERS:
        assert len(SERVERS["page"][1]) > 40


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("case", REBOUND)
async def test_no_page_of_somewhere_else_reaches_any_route(server: str, case: str) -> None:
    app, table = SERVERS[server]
    for method, path in [*table, ("OPTIONS", "/v1/chat/completions"), ("TRACE", "/"), ("WEBSOCKET", "/anything")]:
        key = [("authorization", "Bearer key"), ("content-type", "application/json")]
        status, headers, has_received = await ask(
            app, method, path.replace("{", "").replace("}", ""), REBOUND[case] + key
        )
        assert status in (400, 403), (method, path, status)
        assert not any(name.startswith(b"access-control-") for name in headers)
        assert not has_received, "its body was read"


@pytest.mark.parametrize("server", SERVERS)
async def test_own_requests_pass_without_a_word_to_other_origins(server: str) -> None:
    app, _ = SERVERS[server]
    path = "/config" if server == "page" else "/v1/models"
    own = [GOOD, ("origin", "http://127.0.0.1:8000"), ("authorization", "Bearer key")]
    status, headers, _ = await ask(app, "GET", path, own)
    assert status == 200 and not any(name.startswith(b"access-control-") for name in headers)


async def test_bodies_are_read_where_there_is_a_key_only() -> None:
    app, _ = SERVERS["controller with a key"]
    status, headers, has_received = await ask(app, "POST", "/v1/chat/completions", [GOOD])
    assert status == 401 and headers[b"www-authenticate"] == b"Bearer" and not has_received
