"""The routes of the chat page that are not allowed."""

import httpx
import pytest

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")

from vicuna.serve.door.bodies import MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:9/"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/docs"),
        ("DELETE", "/"),
        ("GET", "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
    ],
)
async def test_routes_that_a_chat_page_does_not_need_are_refused(
    guarded: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await guarded.request(method, path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


async def test_a_body_without_end_is_refused(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.post("/gradio_api/queue/join", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
