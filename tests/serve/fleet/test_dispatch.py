"""Which worker gets a request, and who waits: the fleet without a network."""

import asyncio

import pytest

from tests.serve.builders import make_link
from vicuna.serve.errors import ModelNotFound, NoWorker, QueueFull
from vicuna.serve.fleet.dispatch import Fleet
from vicuna.serve.fleet.link import SUSPECT_SECONDS
from vicuna.serve.fleet.protocol import Pong


async def test_the_least_loaded_worker_is_chosen() -> None:
    fleet = Fleet()
    small, large = make_link("small", max_slots=2), make_link("large", max_slots=4)
    fleet.join(small)
    fleet.join(large)
    chosen = []
    async with fleet.slot("m") as first, fleet.slot("m") as second, fleet.slot("m") as third, fleet.slot("m") as fourth:
        chosen = [each.hello.worker_id for each in (first, second, third, fourth)]
        assert (small.num_held, large.num_held) in ((1, 3), (2, 2))
    assert "small" in chosen and chosen.count("large") >= 2
    assert small.num_held == large.num_held == 0


async def test_slots_of_other_controllers_count() -> None:
    fleet, shared = Fleet(queue_seconds=0.3), make_link(max_slots=2, running=["x"])
    fleet.join(shared)
    async with fleet.slot("m"):
        assert shared.num_free == 0
        with pytest.raises(QueueFull):
            async with fleet.slot("m"):
                pass
        shared.deliver(Pong(num_others=0))
        async with fleet.slot("m") as again:
            assert again is shared


async def test_a_worker_not_heard_of_gets_nothing_new() -> None:
    fleet, silent, well = Fleet(), make_link("silent"), make_link("well", max_slots=9)
    fleet.join(silent)
    fleet.join(well)
    silent.last_heard -= SUSPECT_SECONDS + 1
    for _ in range(3):
        async with fleet.slot("m") as chosen:
            assert chosen is well


async def test_a_slot_is_free_again_whatever_happened_in_it() -> None:
    fleet, only = Fleet(), make_link(max_slots=1)
    fleet.join(only)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with fleet.slot("m"):
                raise RuntimeError
    assert only.num_held == 0


async def test_those_who_wait_are_served_in_order_and_cut_streams_first() -> None:
    fleet, only, order = Fleet(), make_link(max_slots=1), []
    fleet.join(only)

    async def take(name: str, fingerprint: str | None = None) -> None:
        async with fleet.slot("m", fingerprint):
            order.append(name)

    async with fleet.slot("m"):
        tasks = []
        for name, fingerprint in (("first", None), ("second", None), ("cut stream", "f")):
            tasks.append(asyncio.create_task(take(name, fingerprint)))
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["cut stream", "first", "second"]


async def test_a_continuation_takes_equal_fingerprints_only() -> None:
    fleet = Fleet(replacement_seconds=0.1)
    fleet.join(make_link(fingerprint="other"))
    with pytest.raises(NoWorker, match=r"with the same weights and settings came within 0\.1 s"):
        async with fleet.slot("m", "f"):
            pass
    async with fleet.slot("m") as any_worker:
        assert any_worker.fingerprint == "other"


async def test_an_unknown_model_is_told_the_nearest() -> None:
    fleet = Fleet()
    fleet.join(make_link(model="vicuna-7b"))
    with pytest.raises(ModelNotFound, match="did you mean 'vicuna-7b'"):
        async with fleet.slot("vicuna-7"):
            pass
