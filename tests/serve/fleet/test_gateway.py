"""What happens to streams when workers and clients come, go and die."""

import asyncio
import contextlib
from typing import Any

import openai
import pytest

from tests.serve.conftest import start_cluster

SLOW = "speed=200,length=120"


async def read(stream: Any, texts: list[str]) -> list[Any]:
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        texts += [choice.delta.content or "" for choice in chunk.choices]
    return chunks


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"temperature": 1, "seed": 5}, {"max_tokens": 70}, {"stop": ["clouds. "]}]
)
async def test_a_stream_survives_its_worker_with_the_same_text(options: dict[str, Any]) -> None:
    async with start_cluster() as cluster:
        await cluster.add_worker(SLOW)
        await cluster.add_worker(SLOW)
        expected = await cluster.chat(**options)
        texts: list[str] = []
        stream = await cluster.chat(stream=True, stream_options={"include_usage": True}, **options)
        reading = asyncio.create_task(read(stream, texts))
        await cluster.until(lambda: len("".join(texts)) > 15)
        [busy] = [link for link in cluster.fleet.links if link.streams]
        [task] = [task for task, worker in cluster.workers.items() if worker.worker_id == busy.hello.worker_id]
        await cluster.kill(task)
        chunks = await reading
        assert "".join(texts) == expected.choices[0].message.content
        assert chunks[-1].usage == expected.usage
        assert chunks[-2].choices[0].finish_reason == expected.choices[0].finish_reason
        assert chunks[-2].vicuna == {"moves": 1}
        await cluster.until(cluster.is_idle)


async def test_a_stream_waits_for_the_replacement_of_its_worker() -> None:
    async with start_cluster() as cluster:
        task = await cluster.add_worker(SLOW)
        expected = (await cluster.chat()).choices[0].message.content
        texts: list[str] = []
        stream = await cluster.chat(stream=True)
        await cluster.add_worker(SLOW + ",variant=2")  # same name, other weights: it must not continue the stream
        reading = asyncio.create_task(read(stream, texts))
        await cluster.until(lambda: len("".join(texts)) > 10)
        await cluster.kill(task)
        await cluster.until(lambda: cluster.fleet.waiting["sim"])  # so no worker that is there would do
        [other] = cluster.fleet.links
        assert other.num_free == other.max_slots and not reading.done()
        await cluster.add_worker(SLOW)
        await reading
        assert "".join(texts) == expected


async def test_a_lost_stream_without_replacement_ends_in_a_named_error() -> None:
    async with start_cluster(replacement_seconds=0.3) as cluster:
        task = await cluster.add_worker(SLOW)
        texts: list[str] = []
        stream = await cluster.chat(stream=True)
        reading = asyncio.create_task(read(stream, texts))
        whole = asyncio.create_task(cluster.chat("another"))
        await cluster.until(lambda: len("".join(texts)) > 10)
        await cluster.kill(task)
        with pytest.raises(
            openai.APIError, match=r"the worker died after \d+ tokens, and no worker of model 'sim'"
        ) as lost:
            await reading
        assert lost.value.code == "worker_lost"
        with pytest.raises(openai.APIStatusError, match="the worker died after") as failed:
            await whole
        assert failed.value.status_code == 503 and failed.value.response.headers["retry-after"]
        with pytest.raises(openai.APIStatusError, match=r"no worker of model 'sim' came within 0.3 s"):
            await cluster.chat()


async def test_an_expected_model_is_waited_for() -> None:
    async with start_cluster(expected=["late"]) as cluster:
        asking = asyncio.create_task(cluster.chat(model="late"))
        await cluster.until(lambda: cluster.fleet.waiting["late"])
        assert (await cluster.openai.models.list()).data == []
        await cluster.add_worker(name="late")
        assert (await asking).choices[0].message.content


async def test_a_client_that_leaves_frees_its_slot() -> None:
    async with start_cluster() as cluster:
        await cluster.add_worker("speed=20,length=2000", max_slots=1)
        for _ in range(3):
            stream = await cluster.chat(stream=True)
            await anext(aiter(stream))
            assert not cluster.is_idle()
            await stream.close()
            await cluster.until(cluster.is_idle)
        asking = asyncio.create_task(cluster.chat())
        await cluster.until(lambda: not cluster.is_idle())
        asking.cancel()
        await cluster.until(cluster.is_idle)
        waiting = [asyncio.create_task(cluster.chat()) for _ in range(3)]  # one runs, two wait for its slot
        await cluster.until(lambda: len(cluster.fleet.waiting["sim"]) == 2)
        for task in waiting:
            task.cancel()
        await cluster.until(cluster.is_idle)
        assert not cluster.fleet.waiting["sim"]


async def test_a_hundred_broken_off_requests_leave_no_trace() -> None:
    async with start_cluster() as cluster:
        await cluster.add_worker("speed=200,length=500", max_slots=2)

        async def break_off(delay: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    async for _ in await cluster.chat(stream=True):
                        pass

        await asyncio.gather(*(break_off(0.02 + 0.01 * index) for index in range(100)))
        await cluster.until(cluster.is_idle)
        assert (await cluster.chat(max_tokens=5)).usage.completion_tokens == 5


async def test_a_full_queue_answers_503_with_retry_after() -> None:
    async with start_cluster(max_queue=1) as cluster:
        await cluster.add_worker("speed=50,length=30", max_slots=1)
        waiting = [asyncio.create_task(cluster.chat())]
        await cluster.until(lambda: cluster.fleet.links[0].num_held == 1)
        waiting.append(asyncio.create_task(cluster.chat()))
        await cluster.until(lambda: len(cluster.fleet.waiting["sim"]) == 1)
        response = await cluster.post({"model": "sim", "messages": [{"role": "user", "content": "x"}]})
        assert response.status_code == 503 and response.json()["error"]["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
        for task in waiting:
            assert (await task).choices[0].finish_reason == "stop"


async def test_many_requests_at_once_each_get_their_own_text() -> None:
    async with start_cluster() as cluster:
        for _ in range(2):
            await cluster.add_worker("speed=500", max_slots=3)
        alone = [(await cluster.chat(f"prompt {index}")).choices[0].message.content for index in range(12)]
        together = await asyncio.gather(*(cluster.chat(f"prompt {index}") for index in range(12)))
        assert [reply.choices[0].message.content for reply in together] == alone
        assert len(set(alone)) == 12
