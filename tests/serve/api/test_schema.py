"""Request bodies: what is read, what changes nothing, and what is refused by name."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.serve.builders import MESSAGES
from tests.serve.conftest import Cluster
from vicuna.serve.api.schema import ChatRequest, _shown

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
        ({"model": "m" * 129}, "model"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"top_k": 10**30}, "top_k"),
        ({"stop": ["x" * 1001]}, "stop.0"),
        ({"messages": [{}] * 10_001}, "messages"),
        ({"messages": [{"role": "user", "content": "x", **{str(n): 1 for n in range(70)}}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": [{str(n): 1 for n in range(70)}]}]}, "messages.0.content"),
        ({"stream_options": {str(n): 1 for n in range(70)}}, "stream_options"),
        ({str(n): 1 for n in range(70)}, ""),
        ({"x" * 5_000: 1}, "x" * 100),
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


async def test_a_completion_s_ids_are_bounded(cluster: Cluster) -> None:
    cases = (
        ([1] * 200_001, "200,003 parts, 200,000 are taken"),
        ([-1], "'prompt' is [-1]"),
        ([2**31], "'prompt' is [2147483648]"),
    )
    for prompt, words in cases:
        answer = await cluster.post({"model": "sim", "prompt": prompt}, "/v1/completions")
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]


async def test_of_many_faults_the_first_is_told_and_no_other_is_looked_for() -> None:
    cases: list[Any] = [{"messages": [{}] * 10_000}, {"messages": [{"role": "user", "content": [{}] * 100_000}]}]
    for values in cases:
        with pytest.raises(ValidationError) as caught:
            ChatRequest.model_validate({"model": "m", **values})
        assert caught.value.error_count() <= 3


async def test_a_value_is_shown_without_writing_all_of_it() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep, "x" * 1_000]
    for value in ("x" * 10**6, [1] * 10**6, {str(n): n for n in range(10**5)}, 10**4000, deep, None, True):
        assert len(_shown(value)) <= 100
