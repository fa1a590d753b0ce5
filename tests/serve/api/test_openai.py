"""The HTTP API as OpenAI's own client and plain HTTP see it."""

from typing import Any

import openai
import pytest

from tests.serve.builders import MESSAGES
from tests.serve.conftest import Cluster
from vicuna.serve.door.bodies import MAX_BODY_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    limit: Any = {name: 8}
    reply = await cluster.chat(**limit)
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
    options: Any = {"model": "sim", "temperature": 0, "max_tokens": 40}
    text = await cluster.openai.completions.create(prompt="abc", **options)
    assert text.object == "text_completion" and text.usage.prompt_tokens == 3
    ids = await cluster.openai.completions.create(prompt=list(b"abc"), **options)
    assert ids.choices[0].text == text.choices[0].text
    stream = await cluster.openai.completions.create(prompt="abc", stream=True, **options)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="999999 is not in the vocabulary of 258"):
        await cluster.openai.completions.create(prompt=[999999], model="sim")
