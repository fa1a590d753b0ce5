"""Stop signals become a question the loop asks once a step: SIGTERM from a scheduler, SIGINT from Ctrl-C.

Before: `__main__` installs it. After: `loop` finishes its step, saves a checkpoint and leaves with 128 + signal.
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from vicuna import log


class StopSignal:
    """Catches the first SIGTERM or SIGINT while its block runs; the second acts as if nobody had caught the first."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._catch) for number in self.SIGNALS}
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._restore()

    def _catch(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        log.info(f"{self.received.name}: saving a checkpoint after this step (once more: stop at once)")

    def _restore(self) -> None:
        while self._earlier:
            signal.signal(*self._earlier.popitem())
