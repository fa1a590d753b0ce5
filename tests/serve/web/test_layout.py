"""The chat page as HTML."""

import re

import httpx
import pytest

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")


async def test_the_page_asks_no_other_host(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)', answer.text)
