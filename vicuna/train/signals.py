"""Stop signals, which the loop checks once a step: SIGTERM and SIGUSR1 from a scheduler, SIGINT from Ctrl-C, SIGHUP
from a terminal that closes.

With several ranks, a signal may reach them at different moments, or only one of them: flags of the signals received are
part of the step's one all-reduce, so that all ranks stop after the same step.

Before: `loop` installs it. After: `loop` finishes its step, saves a checkpoint and leaves with 128 + signal; when the
steps are all done, it writes the model to its end.
"""

import os
import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from vicuna.io import log


class StopSignal:
    """Catches the first stop signal while its block runs; a second one has its earlier effect.

    Under `torchrun` a second one is ignored: Ctrl-C, or a scheduler that ends a job, signals every process of the job,
    and torchrun then signals its ranks again. It kills them if they take longer than its --shutdown-timeout.
    A signal that the run was started to ignore (`nohup`) stays ignored.

    Attributes:
        received: the signal that this rank has received, if any.
        agreed: the signal that all ranks stop for, after the all-reduce.
        answer: what will be done, for the log message.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        self.answer = "saving a checkpoint after this step"
        self._is_under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        numbers = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._earlier = {number: signal.signal(number, self._catch) for number in numbers}
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._restore()

    def flags(self) -> list[float]:
        """For each of `SIGNALS` 1.0 if this rank has received it, else 0.0: to be summed over the ranks."""
        return [float(number == self.received) for number in self.SIGNALS]

    def agree(self, sums: Sequence[float]) -> bool:
        """Set `agreed` from the sums of all ranks' flags. True if there was a signal."""
        self.agreed = self.agreed or next(
            (number for number, sum_ in zip(self.SIGNALS, sums, strict=True) if sum_), None
        )
        return self.agreed is not None

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self.received:
            return
        self.received = signal.Signals(number)
        if self._is_under_torchrun:
            log.info(f"{self.received.name}: {self.answer}")
        else:
            self._restore()
            log.info(f"{self.received.name}: {self.answer} (once more: stop at once)")

    def _restore(self) -> None:
        while self._earlier:
            signal.signal(*self._earlier.popitem())
