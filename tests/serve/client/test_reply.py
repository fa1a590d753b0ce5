"""A reply's speed and summary."""

from vicuna.serve.client.http import Chunk, Usage
from vicuna.serve.client.reply import Reply


def test_speed_leaves_the_wait_for_the_first_token_out() -> None:
    reply = Reply(started_at=10.0)
    reply.add(Chunk("a"), 12.0)
    reply.add(Chunk("b", finish_reason="length"), 14.0)
    reply.add(Chunk(usage=Usage(5, 21)), 14.5)
    assert reply.tokens_per_second() == 10.0
    assert reply.summary() == (
        "5 prompt + 21 reply tokens · 10.0 tokens/s · first after 2.0 s · 4.0 s in all · cut at the token limit"
    )
    assert Reply(0.0).summary() == ""
