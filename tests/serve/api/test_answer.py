"""The JSON of answers, whole and streamed."""

import json

import pytest

from tests.serve.builders import MESSAGES
from tests.serve.conftest import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_answer_in_one_piece_has_openai_s_shape(cluster: Cluster) -> None:
    response = await cluster.post({"model": "sim", "messages": MESSAGES, "temperature": 0})
    body = response.json()
    assert response.status_code == 200
    assert set(body) == {"id", "object", "created", "model", "choices", "usage"}
    assert body["object"] == "chat.completion" and body["id"].startswith("chatcmpl-")
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    # The sim engine's tokens are bytes, so the reply's tokens are known.
    reply = len(choice["message"]["content"].encode())
    assert body["usage"]["completion_tokens"] == reply
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + reply


async def test_a_stream_is_role_text_reason_done(cluster: Cluster) -> None:
    body = {"model": "sim", "messages": MESSAGES, "temperature": 0, "stream": True}
    async with cluster.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", "sim")
    }
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(choice["delta"]) == {"content"} for choice in choices[1:-1])
    assert choices[-1]["delta"] == {} and choices[-1]["finish_reason"] == "stop"
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    assert not any("usage" in chunk for chunk in chunks)
