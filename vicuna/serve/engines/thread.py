"""An engine in a thread of its own: loaded there, fed with commands there, so that the event loop never waits for it.

Before: the worker posts `submit` and `cancel`. After: it gets every step's results in its event loop.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

from vicuna.serve.engines.interface import Engine, EngineStep


class EngineThread:
    """Runs an engine in one thread: loads it there, feeds it commands, hands its steps to the event loop."""

    def __init__(self, load: Callable[[], Engine], on_steps: Callable[[list[EngineStep]], None]) -> None:
        self._load, self._on_steps = load, on_steps
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        self.loaded: asyncio.Future[Engine] = self._loop.create_future()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    def post(self, command: Callable[[Engine], None]) -> None:
        """Have the engine do something between two steps."""
        self._commands.put(command)

    def close(self) -> None:
        """End the thread after the step it is in; a hung one is left behind."""
        self._commands.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        try:
            engine = self._load()
        except BaseException as error:
            return self._tell(_fail, self.loaded, error)
        self._tell(_succeed, self.loaded, engine)
        try:
            while self._obey(engine):
                steps = engine.step()
                self._tell(self._on_steps, steps)
        except BaseException as error:
            self._tell(_fail, self.failed, error)

    def _obey(self, engine: Engine) -> bool:
        """Carry out what was posted, waiting for it if the engine has nothing else to do. False: stop."""
        while True:
            try:
                command = self._commands.get(block=not engine.is_busy)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(engine)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody cares any more
            pass


def _succeed(future: asyncio.Future[Engine], engine: Engine) -> None:
    if not future.done():  # the worker may have been told to end while the model was loading
        future.set_result(engine)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
