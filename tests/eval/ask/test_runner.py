"""So many calls at a time, and which failures end a run."""

import asyncio

import pytest

from vicuna.errors import VicunaError
from vicuna.eval.ask.endpoint import EndpointError
from vicuna.eval.ask.runner import MAX_FAILURES_IN_A_ROW, Outcome, OutOfBudget, run_calls


async def test_no_more_calls_at_a_time_than_allowed() -> None:
    running, most, started = 0, 0, []

    async def call(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        started.append(item)
        await asyncio.sleep(0)
        running -= 1

    outcome = await run_calls(range(20), call, concurrency=3)
    assert (outcome.num_done, most, started) == (20, 3, list(range(20)))


async def test_a_call_that_fails_is_left_out_and_the_others_are_made() -> None:
    async def call(item: int) -> None:
        if item == 2:
            raise EndpointError("no")

    outcome = await run_calls(range(5), call, concurrency=1)
    assert outcome == Outcome(num_done=4, failures=["no"])
    with pytest.raises(VicunaError, match=r"1 of 5 answers missing: no \(run again to go on\)"):
        outcome.require_complete(5, "answers")


@pytest.mark.parametrize("error", [EndpointError("wrong key", ends_run=True), OutOfBudget("wrong key")])
async def test_a_failure_that_all_share_ends_the_run_when_the_others_have_ended(error: VicunaError) -> None:
    made, failed = [], asyncio.Event()

    async def call(item: int) -> None:
        if item == 0:
            await failed.wait()
        elif item == 1:
            failed.set()
            raise error
        made.append(item)

    outcome = await run_calls(range(20), call, concurrency=2)
    assert outcome.stopped_by == "wrong key"
    assert made == [0], "the call in flight is kept, and no other one is made"


async def test_many_failures_in_a_row_end_the_run() -> None:
    calls = []

    async def call(item: int) -> None:
        calls.append(item)
        if item != 3:
            raise EndpointError("busy")

    outcome = await run_calls(range(100), call, concurrency=1)
    assert len(calls) == 4 + MAX_FAILURES_IN_A_ROW and outcome.num_done == 1
