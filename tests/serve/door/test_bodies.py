"""Bodies of bounded size, and of bounded weight together."""

from typing import Any

import pytest

from vicuna.serve.door import bodies
from vicuna.serve.door.bodies import Bodies, announced_bytes
from vicuna.serve.errors import BodyTooLarge, ClientLeft, InvalidRequest, ServerBusy


def pieces(*sent: bytes, is_left: bool = False) -> Any:
    """What comes of a body: `sent`, and then the client is gone or it was all."""
    messages: list[Any] = [{"type": "http.request", "body": piece, "more_body": True} for piece in sent]
    messages.append({"type": "http.disconnect"} if is_left else {"type": "http.request", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    return receive


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "headers": list(headers)}


async def test_a_body_is_read_as_far_as_it_may_be() -> None:
    held = Bodies(10)
    with held.weighed() as weight:
        assert await held.read(scope(), pieces(b"[1,", b"2]"), weight) == b"[1,2]"
        with pytest.raises(BodyTooLarge, match="10 are taken"):
            await held.read(scope(), pieces(b"x" * 6, b"x" * 6, b"never read"), weight)
        with pytest.raises(BodyTooLarge, match="11 bytes or more"):
            await held.read(scope((b"content-length", b"11")), None, weight)  # type: ignore[arg-type]
        with pytest.raises(ClientLeft):
            await held.read(scope(), pieces(b"x", is_left=True), weight)


@pytest.mark.parametrize("value", [b"-1", b"+5", b"1e3", b"", b"9" * 30, "\u0665".encode()])
def test_a_length_that_is_none(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        announced_bytes(scope((b"content-length", value)))


async def test_all_together_weigh_so_much_and_small_ones_always_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_WEIGHT_BYTES", 1 << 20)
    held = Bodies()
    large, small = b"x" * (700 << 10), b"x" * 1_000
    with held.weighed() as first:
        await held.read(scope(), pieces(large), first)
        with held.weighed() as second, held.weighed() as third:
            with pytest.raises(ServerBusy, match="1 MiB are taken") as caught:
                await held.read(scope(), pieces(large), second)
            assert caught.value.retry_after
            assert await held.read(scope(), pieces(small), third) == small
    assert held.weight_bytes == 0
    with held.weighed() as again:
        await held.read(scope(), pieces(large), again)


async def test_a_body_of_many_parts_weighs_what_they_become() -> None:
    held = Bodies()
    with held.weighed() as weight:
        await held.read(scope(), pieces(b"[" + b"1," * 100_000 + b"1]"), weight)
        assert held.weight_bytes > 100_000 * bodies.PART_BYTES
