"""The controller's end of a worker's connection, without a network."""

import pytest

from tests.serve.builders import make_link, make_sampling
from vicuna.serve.fleet.link import DEAD_SECONDS, WorkerLost
from vicuna.serve.fleet.protocol import CLOSE_HUNG, Cancel, Ping, Pong, Refused, ReplyChunk, ReplyChunks, Submit


def make_submit(request_id: str) -> Submit:
    """A request of that id."""
    return Submit(request_id=request_id, text="x", sampling=make_sampling())


async def test_chunks_go_to_the_stream_of_their_request() -> None:
    link = make_link()
    first, second, stranger = (ReplyChunk(request_id=name, index=0, token_ids=[1]) for name in ("a", "b", "c"))
    async with link.stream(make_submit("a")) as a, link.stream(make_submit("b")) as b:
        link.deliver(ReplyChunks(steps=[first, second, stranger]))
        assert (a.get_nowait(), b.get_nowait()) == (first, second)
        assert a.empty() and b.empty()


async def test_a_stream_that_is_left_early_is_cancelled_and_one_that_ended_is_not() -> None:
    link = make_link()
    async with link.stream(make_submit("left")):
        pass
    async with link.stream(make_submit("ended")):
        link.deliver(ReplyChunks(steps=[ReplyChunk(request_id="ended", index=0, finish_reason="stop")]))
    sent = [link.outgoing.get_nowait() for _ in range(link.outgoing.qsize())]
    assert [frame for frame in sent if isinstance(frame, Cancel)] == [Cancel(request_id="left")]
    assert not link.streams


async def test_closing_ends_all_streams_and_those_that_come_later() -> None:
    link = make_link()
    async with link.stream(make_submit("a")) as events:
        link.close(CLOSE_HUNG)
        link.close()
        assert isinstance(events.get_nowait(), WorkerLost) and events.empty()
    async with link.stream(make_submit("b")) as events:
        assert isinstance(events.get_nowait(), WorkerLost)
    assert not link.is_open and link.close_code == CLOSE_HUNG


async def test_a_worker_without_a_sign_of_life_is_closed() -> None:
    link = make_link()
    link.ping()
    assert link.outgoing.get_nowait() == Ping() and link.is_open
    link.last_heard -= DEAD_SECONDS + 1
    assert not link.is_healthy
    link.deliver(Pong(num_others=1))
    assert link.is_healthy and link.num_free == 1
    link.last_heard -= DEAD_SECONDS + 1
    link.ping()
    assert not link.is_open


async def test_a_busy_worker_counts_as_full_until_it_says_otherwise() -> None:
    link = make_link()
    link.deliver(Refused(request_id="a", code="busy", message="all slots are taken"))
    assert link.num_free == 0 and link.load == 1
    link.deliver(Pong(num_others=0))
    assert link.num_free == 2


async def test_a_second_hello_is_a_fault() -> None:
    link = make_link()
    with pytest.raises(ValueError, match="a second hello"):
        link.deliver(link.hello)
