"""Request bodies: what is read, what changes nothing, and what is refused by name."""

from typing import Any

import pytest

from tests.serve.builders import MESSAGES
from tests.serve.conftest import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_content_may_be_text_parts_and_developer_is_system(cluster: Cluster) -> None:
    plain = [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}]
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    other = [{"role": "developer", "content": "short"}, {"role": "user", "content": parts, "name": None}]
    bodies = [{"model": "sim", "messages": messages, "temperature": 0} for messages in (plain, other)]
    first, second = [(await cluster.post(body)).json() for body in bodies]
    assert first["choices"] == second["choices"] and first["usage"] == second["usage"]


async def test_values_that_change_nothing_are_accepted(cluster: Cluster) -> None:
    neutral = {"n": 1, "logprobs": False, "presence_penalty": 0, "tools": [], "user": None, "temperature": None}
    response = await cluster.post({"model": "sim", "messages": MESSAGES, **neutral})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "0.7"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usge": True}}, "stream_options.include_usge"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"user": "me"}, "user"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tempreature": 1}, "tempreature"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ({"model": None}, "model"),
    ],
)
async def test_a_wrong_or_unsupported_field_is_named(
    cluster: Cluster, change: dict[str, Any], param: str | None
) -> None:
    response = await cluster.post({"model": "sim", "messages": MESSAGES, **change})
    error = response.json()["error"]
    assert response.status_code == 400 and error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param and param.split(".")[-1] in error["message"]
    await cluster.chat()  # nothing is stuck


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b'{"model": "\\ud800"}', b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_refused(cluster: Cluster, body: bytes) -> None:
    response = await cluster.http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400 and response.json()["error"]["message"]
