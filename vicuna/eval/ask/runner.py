"""Many calls concurrently, a bounded number at a time, and the outcome of the run.

`answer` and `judge` give it their calls. A call that fails is counted and left for the next run; a failure that every
further call would share stops the run, after the calls in flight have ended and been kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vicuna.errors import VicunaError, describe
from vicuna.eval.ask.endpoint import EndpointError

Item = TypeVar("Item")
MAX_FAILURES_IN_A_ROW = 10


class OutOfBudget(VicunaError):
    """The next call could cost more than is left."""


@dataclass
class Outcome:
    """How a run went: calls kept, calls failed, and why it stopped early, if it did."""

    num_done: int = 0
    failures: list[str] = field(default_factory=list)
    stopped_by: str | None = None

    def require_complete(self, num_items: int, what: str) -> None:
        """Raise unless every call was kept.

        Raises:
            VicunaError: says how many are missing and why.
        """
        if missing := num_items - self.num_done:
            reason = self.stopped_by or self.failures[0]
            raise VicunaError(f"{missing} of {num_items} {what} missing: {reason} (run again to go on)")


async def run_calls(items: Sequence[Item], call: Callable[[Item], Awaitable[None]], *, concurrency: int) -> Outcome:
    """Make a call for each item, `concurrency` at a time, in order of the items."""
    outcome = Outcome()
    remaining: Iterator[Item] = iter(items)
    failures_in_a_row = 0

    async def work() -> None:
        nonlocal failures_in_a_row
        for item in remaining:
            try:
                await call(item)
            except OSError as error:  # the disk: what is paid for could not be kept
                outcome.failures.append(describe(error))
                outcome.stopped_by = outcome.stopped_by or describe(error)
            except (EndpointError, OutOfBudget) as error:
                outcome.failures.append(str(error))
                failures_in_a_row += 1
                ends_run = isinstance(error, OutOfBudget) or error.ends_run
                if ends_run or failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    outcome.stopped_by = outcome.stopped_by or str(error)
            else:
                outcome.num_done += 1
                failures_in_a_row = 0
            if outcome.stopped_by:
                return

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, len(items))):
            workers.create_task(work())
    return outcome
