"""The HTTP API as OpenAI's own client and plain HTTP see it."""

import json
import os
from typing import Any

import openai
import pytest

from tests.serve.conftest import Cluster, start_cluster
from vicuna.serve.api.openai import MAX_BODY_BYTES
from vicuna.serve.auth import _hash

pytestmark = pytest.mark.asyncio(loop_scope="module")
MESSAGES = [{"role": "user", "content": "hello"}]


async def stream_text(cluster: Cluster, **options: Any) -> tuple[str, list[Any]]:
    chunks = [chunk async for chunk in await cluster.chat(stream=True, **options)]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks


async def test_models_are_listed_and_found_by_name(cluster: Cluster) -> None:
    other = await cluster.add_worker(name="org/other:7b")
    listed = await cluster.openai.models.list()
    assert [model.id for model in listed.data] == ["org/other:7b", "sim"]
    assert (await cluster.openai.models.retrieve("org/other:7b")).id == "org/other:7b"
    with pytest.raises(openai.NotFoundError, match="did you mean 'sim'"):
        await cluster.openai.models.retrieve("simm")
    await cluster.kill(other)
    await cluster.until(lambda: len(cluster.fleet.links) == 1)
    assert [model.id for model in (await cluster.openai.models.list()).data] == ["sim"]


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


async def test_a_stream_and_a_whole_answer_agree_and_never_show_half_a_character(cluster: Cluster) -> None:
    texts = ""
    for prompt in ("one", "two", "three"):
        whole = await cluster.chat(prompt)
        text, chunks = await stream_text(cluster, content=prompt, stream_options={"include_usage": True})
        assert text == whole.choices[0].message.content
        assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
        texts += text
    assert "\ufffd" not in texts and any(ord(character) > 0x2000 for character in texts)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_length_is_bounded(cluster: Cluster, name: str) -> None:
    reply = await cluster.chat(**{name: 8})
    assert reply.usage.completion_tokens == 8
    assert reply.choices[0].finish_reason == "length"


async def test_stop_strings_end_the_reply_before_them(cluster: Cluster) -> None:
    full = (await cluster.chat()).choices[0].message.content
    cut = full.index(" ", 12)
    stop = full[cut : cut + 4]  # spans several tokens
    for given in (stop, ["never said", stop]):
        reply = await cluster.chat(stop=given)
        assert reply.choices[0].message.content == full[: full.index(stop)]
        assert reply.choices[0].finish_reason == "stop"
        assert (await stream_text(cluster, stop=given))[0] == full[: full.index(stop)]
    await cluster.until(cluster.is_idle)


async def test_a_seed_fixes_the_choice(cluster: Cluster) -> None:
    texts = [(await cluster.chat(temperature=1, seed=seed)).choices[0].message.content for seed in (1, 1, -1, 2)]
    assert texts[0] == texts[1] and len(set(texts)) == 3


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


async def test_other_errors_have_the_shape_too(cluster: Cluster) -> None:
    unknown = await cluster.post({"model": "simm", "messages": MESSAGES})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found" and unknown.json()["error"]["param"] == "model"
    form = await cluster.http.post("/v1/chat/completions", data={"a": "b"})
    assert form.status_code == 415 and "application/json" in form.json()["error"]["message"]
    huge = await cluster.post({"model": "sim", "messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]})
    assert huge.status_code == 413
    assert (await cluster.http.get("/v1/chat/completions")).status_code == 405
    nowhere = await cluster.http.get("/v1/nothing")
    assert nowhere.status_code == 404 and "/v1/nothing" in nowhere.json()["error"]["message"]


async def test_a_prompt_longer_than_the_context_is_the_client_s_mistake(cluster: Cluster) -> None:
    with pytest.raises(openai.BadRequestError, match="context of model 'sim' is 4096") as caught:
        await cluster.chat("x" * 5000, stream=True)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    await cluster.until(cluster.is_idle)


async def test_completions_continue_a_bare_prompt(cluster: Cluster) -> None:
    options = {"model": "sim", "temperature": 0, "max_tokens": 40}
    text = await cluster.openai.completions.create(prompt="abc", **options)
    assert text.object == "text_completion" and text.usage.prompt_tokens == 3
    ids = await cluster.openai.completions.create(prompt=list(b"abc"), **options)
    assert ids.choices[0].text == text.choices[0].text
    stream = await cluster.openai.completions.create(prompt="abc", stream=True, **options)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="999999 is not in the vocabulary of 258"):
        await cluster.openai.completions.create(prompt=[999999], model="sim")


async def test_a_key_is_needed_everywhere_once_there_is_one() -> None:
    async with start_cluster(api_keys=[_hash("right"), _hash("also right")]) as cluster:
        await cluster.add_worker()
        for path in ("/v1/models", "/v1/models/sim", "/v1/chat/completions", "/v1/completions", "/workers", "/new"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
                response = await cluster.http.get(path, headers=headers)
                assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        assert (await cluster.http.get("/healthz")).status_code == 200
        good = await cluster.http.get("/v1/models", headers={"authorization": "Bearer also right"})
        assert good.status_code == 200


async def test_a_local_server_answers_to_local_names_only(cluster: Cluster) -> None:
    for host, status in (("evil.example", 403), ("localhost:1", 200), ("[::1]:1", 200), ("127.0.0.1", 200)):
        response = await cluster.http.get("/v1/models", headers={"host": host})
        assert response.status_code == status, host


async def test_workers_tell_their_process(cluster: Cluster) -> None:
    [row] = (await cluster.http.get("/workers")).json()["workers"]
    assert row["model"] == "sim" and row["pid"] == os.getpid() and row["healthy"]
