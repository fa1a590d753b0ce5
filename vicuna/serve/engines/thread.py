"""An engine in a thread of its own: loaded there, fed with commands there, so that the event loop never waits for it.

Before: the worker posts `submit` and `cancel`. After: it reads the outputs of each step in its event loop.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from vicuna.serve.engines.interface import Engine, StepOutput


class EngineThread:
    """Loads an engine and steps it as long as it is busy, all in one thread.

    Args:
        load: makes the engine.

    Attributes:
        loaded: the engine, or the exception of `load`.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Callable[[Engine], object] | None] = queue.SimpleQueue()
        self._results: asyncio.Queue[list[StepOutput] | BaseException] = asyncio.Queue()
        self.loaded: asyncio.Future[Engine] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    def post(self, command: Callable[[Engine], object]) -> None:
        """Call `command` with the engine, in its thread, between two steps."""
        self._commands.put(command)

    async def steps(self) -> AsyncIterator[list[StepOutput]]:
        """The outputs of each step, for ever; raises the exception with which the engine failed."""
        while True:
            result = await self._results.get()
            if isinstance(result, BaseException):
                raise result
            yield result

    def close(self) -> None:
        """End the thread after the step it is in; one that hangs is left behind."""
        self._commands.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        try:
            engine = self._load()
        except BaseException as error:
            return self._call_in_loop(_fail, self.loaded, error)
        self._call_in_loop(_succeed, self.loaded, engine)
        try:
            while self._execute_commands(engine):
                self._call_in_loop(self._results.put_nowait, engine.step())
        except BaseException as error:
            self._call_in_loop(self._results.put_nowait, error)

    def _execute_commands(self, engine: Engine) -> bool:
        """Execute what was posted, waiting for it if the engine is not busy. False: end."""
        while True:
            try:
                command = self._commands.get(block=not engine.is_busy)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(engine)

    def _call_in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: the worker has ended
            pass


def _succeed(future: asyncio.Future[Engine], engine: Engine) -> None:
    if not future.done():  # the worker may have been told to end while the model was loading
        future.set_result(engine)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
