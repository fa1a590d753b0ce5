"""The chat page as an ASGI app, without a server."""

import httpx
import pytest

from vicuna.serve.client.http import ApiClient


@pytest.fixture(scope="module")
def guarded() -> httpx.AsyncClient:
    from vicuna.serve.web.layout import build_app

    app = build_app(ApiClient("http://127.0.0.1:9/v1"), concurrency=2)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")
