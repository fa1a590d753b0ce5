"""Heads of requests: as much as may be, over real sockets."""

import asyncio
from collections.abc import Iterable

import pytest

from tests.serve.conftest import Cluster
from vicuna.serve.door import connection
from vicuna.serve.door.connection import MAX_HEAD_BYTES, MAX_HEADERS

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
PIECE = b"a" * 65536
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MANY = 4_000


async def ask(cluster: Cluster, pieces: Iterable[bytes]) -> tuple[bytes, int]:
    """The answer's first line, and how many of the pieces were sent until it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(cluster.url.rsplit(":", 1)[1]))
    line = asyncio.ensure_future(reader.readline())
    num_sent = 0
    try:
        for piece in pieces:
            if line.done():
                break
            writer.write(piece)
            num_sent += 1
            await writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    try:
        async with asyncio.timeout(10):
            return await line, num_sent
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"X: ", *[PIECE] * MANY],
        [HEAD + PIECE, *[PIECE] * MANY],
        [b"GET /" + PIECE, *[PIECE] * MANY],
        [PIECE] * MANY,
        [HEAD, *[b"".join(b"h%d: 1\r\n" % n for n in range(1000))] * MANY],
        [CHUNKED + b"1;", *[PIECE] * MANY],
        [CHUNKED + b"2\r\n{}\r\n0\r\n", *[b"t: " + b"x" * 1000 + b"\r\n"] * MANY],
    ],
    ids=["header", "name", "request line", "method", "headers", "chunk", "trailers"],
)
async def test_a_head_without_end_is_answered_before_it_is_kept(cluster: Cluster, pieces: list[bytes]) -> None:
    line, num_sent = await ask(cluster, pieces)
    assert line.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), line
    assert num_sent < MANY
    assert (await cluster.http.get("/healthz")).status_code == 200


async def test_the_borders(cluster: Cluster) -> None:
    for count, status in ((MAX_HEADERS - 4, b"200"), (MAX_HEADERS + 1, b"431")):
        head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"h%d: 1\r\n" % n for n in range(count))
        line, _ = await ask(cluster, [head + b"\r\n"])
        assert line.split()[1] == status
    for size, status in ((MAX_HEAD_BYTES - 200, b"200"), (MAX_HEAD_BYTES, b"431")):
        head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * size
        for pieces in ([head + b"\r\n\r\n"], [head[:1000], head[1000:], b"\r\n\r\n"]):
            line, _ = await ask(cluster, pieces)
            assert line.split()[1] == status


async def test_a_body_in_many_small_chunks_is_read(cluster: Cluster) -> None:
    body = b'{"model": "sim", "stream": false, "messages": [{"role": "user", "content": "%s"}]}' % (b"a" * 3000)
    chunks = b"".join(b"1;%s\r\n%c\r\n" % (b"e" * 100, byte) for byte in body)
    line, _ = await ask(cluster, [CHUNKED + chunks + b"0\r\n\r\n"])
    assert line.split()[1] == b"200"


async def test_requests_one_after_the_other_each_have_their_own_measure(cluster: Cluster) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(cluster.url.rsplit(":", 1)[1]))
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
    writer.write(request * 5)
    async with asyncio.timeout(10):
        for _ in range(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()


async def test_requests_without_end_that_nobody_reads_the_answers_of_are_left(cluster: Cluster) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(cluster.url.rsplit(":", 1)[1]))
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    writer.write(request * 20_000)
    try:
        async with asyncio.timeout(20):
            answers = await reader.read(-1)
    except ConnectionError:
        answers = b""
    assert answers.count(b"HTTP/1.1 200 ") < 20_000
    assert (await cluster.http.get("/healthz")).status_code == 200
    writer.close()


async def test_a_large_body_is_answered_before_it_is_sent(cluster: Cluster) -> None:
    line, num_sent = await ask(cluster, [HEAD + b"Content-Length: 300000000\r\n\r\n", *[PIECE] * MANY])
    assert line.startswith(b"HTTP/1.1 413 ") and num_sent < MANY


async def test_so_many_connections_and_no_more(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 0)
    line, _ = await ask(cluster, [b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
    assert line.startswith(b"HTTP/1.1 503 ")
