"""The thread round an engine, when the worker ends at a bad moment."""

import asyncio
import threading
from typing import Any

import pytest

from vicuna.serve.engines.interface import EngineOptions
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
