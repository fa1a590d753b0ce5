"""The thread of an engine: its steps, its failure, and its end while the model is loading."""

import asyncio
import threading
from typing import Any

import pytest

from tests.serve.builders import make_sampling
from vicuna.serve.engines.interface import EngineOptions, EngineRequest
from vicuna.serve.engines.sim import load
from vicuna.serve.engines.thread import EngineThread


@pytest.mark.parametrize("fails", [False, True])
def test_told_to_end_while_the_model_is_loading(fails: bool) -> None:
    mistakes: list[dict[str, Any]] = []
    may_go_on = threading.Event()

    def load_slowly() -> Any:
        may_go_on.wait(10)
        if fails:
            raise RuntimeError("too late")
        return load(EngineOptions("a", None, None, 1, 1, None))

    async def end_early() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))
        thread = EngineThread(load_slowly)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await thread.loaded
        may_go_on.set()
        thread.close()  # it has ended now, and left its result in the loop's queue
        await asyncio.sleep(0)

    asyncio.run(end_early())
    assert mistakes == []


def test_steps_come_to_the_event_loop_and_end_with_the_engine_s_failure() -> None:
    async def run() -> int:
        thread = EngineThread(lambda: load(EngineOptions("length=5")))
        await thread.loaded
        thread.post(lambda engine: engine.submit(EngineRequest("a", (1,), 1, 3, frozenset(), make_sampling())))
        num_tokens = 0
        try:
            async with asyncio.timeout(10):
                async for outputs in thread.steps():
                    num_tokens += sum(len(output.token_ids) for output in outputs)
                    if outputs[-1].finish_reason:
                        thread.post(lambda engine: engine.step())  # nothing is in: the engine fails
        except ValueError:
            return num_tokens
        finally:
            thread.close()
        return -1

    assert asyncio.run(run()) == 3
