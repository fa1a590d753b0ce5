"""The client against real HTTP on loopback: streams, errors in words, and connections that really close."""

import asyncio
import gzip
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.serve.stub_api import RICH_REPLY, StubApi
from vicuna.conversation import Message
from vicuna.errors import UsageError
from vicuna.serve.client.http import ApiClient, ApiError, ChatRequest, Chunk, EventReader, Usage
from vicuna.serve.client.reply import Reply


@pytest.fixture
def api() -> Iterator[StubApi]:
    with StubApi(("a", "b")) as server:
        yield server


def ask(question: str, model: str = "a") -> ChatRequest:
    return ChatRequest(model, [Message("system", "be brief"), Message("user", question)], 0.5, 0.9, 64)


def read(api: StubApi, request: ChatRequest) -> Reply:
    reply = Reply(0.0)
    with ApiClient(api.url).stream(request) as chunks:
        for now, chunk in enumerate(chunks):
            reply.add(chunk, float(now))
    return reply


def test_a_reply_streams_with_its_usage(api: StubApi) -> None:
    reply = read(api, ask("tour"))
    assert reply.text == RICH_REPLY
    assert reply.finish_reason == "stop"
    assert reply.usage is not None and reply.usage.prompt_tokens == 12
    assert api.requests == [
        {
            "model": "a",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tour"}],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_the_async_client_reads_the_same(api: StubApi) -> None:
    async def read_async() -> str:
        async with ApiClient(api.url).stream_async(ask("tour")) as chunks:
            return "".join([chunk.text async for chunk in chunks])

    assert asyncio.run(read_async()) == RICH_REPLY
    assert asyncio.run(ApiClient(api.url).models_async()) == ApiClient(api.url).models() == ["a", "b"]


def test_leaving_the_stream_closes_the_connection(api: StubApi) -> None:
    with ApiClient(api.url).stream(ask("slow")) as chunks:
        next(chunks)
    assert api.left.wait(2)
    assert api.completed == 0


def test_cancelling_the_task_closes_the_connection_even_while_the_model_is_silent(api: StubApi) -> None:
    async def leave() -> None:
        is_open = asyncio.Event()

        async def read_all() -> None:
            async with ApiClient(api.url).stream_async(ask("silent")) as chunks:
                async for _ in chunks:
                    is_open.set()

        task = asyncio.create_task(read_all())
        async with asyncio.timeout(10):
            await is_open.wait()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(leave())
    assert api.left.wait(2)


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        ("fail", 500, "the server failed with 500 (the engine died)"),
        ("busy", 429, "the server is busy (queue full: 8 waiting); try again in 3 s"),
        ("key", 401, "put it into VICUNA_API_KEY"),
        ("page", 400, "refused the request with 400: <html>proxy</html>"),
        ("cut", None, "the reply broke off: the server closed the connection before its end"),
        ("broken", None, "the reply broke off: the worker of stub-model died"),
    ],
)
def test_errors_say_what_happened_and_the_way_out(api: StubApi, question: str, status: int | None, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(api, ask(question))
    assert words in str(caught.value)
    assert caught.value.status == status


def test_unknown_model_and_dead_server(api: StubApi) -> None:
    with pytest.raises(ApiError, match="404: no model c"):
        read(api, ask("hi", model="c"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ApiError, match=f"no server answers at {url}; start one with: vicuna serve"):
            ApiClient(url).models()


def test_a_server_that_is_no_api(api: StubApi) -> None:
    with pytest.raises(ApiError, match="404"):
        ApiClient(api.url + "/deeper").models()


def test_the_key_comes_from_the_environment_only(api: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
    read(api, ask("hi"))
    monkeypatch.setenv("VICUNA_API_KEY", "secret-1")
    read(api, ask("hi"))
    assert api.keys == [None, "Bearer secret-1"]
    with pytest.raises(UsageError, match="VICUNA_API_KEY"):
        ApiClient("http://user:password@127.0.0.1:8000/v1")


def test_a_proxy_is_not_asked_for_the_own_machine(api: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ApiClient(api.url).models() == ["a", "b"]


def test_events_may_be_cut_anywhere() -> None:
    data = (
        'data: {"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n: ping\n\n'
        'data: {"choices":[{"delta":{"content":"é\u2028 end"},"finish_reason":null}]}\n\n'
        'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
        'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    ).encode()
    for step in (1, 2, 7, len(data)):
        reader = EventReader()
        chunks = [chunk for start in range(0, len(data), step) for chunk in reader.feed(data[start : start + step])]
        reader.finish()
        assert chunks == [
            Chunk(),
            Chunk("é\u2028 end"),
            Chunk(finish_reason="length"),
            Chunk(usage=Usage(3, 2)),
        ]


def test_a_foreign_event_is_an_error() -> None:
    for line in (b"data: hello\n", b"data: [1]\n", b'data: {"choices": [7]}\n', b'data: {"usage": {"x": 1}}\n'):
        with pytest.raises(ApiError, match="not a chat completion"):
            EventReader().feed(line)


class Raw:
    """A server that answers every request with the same bytes, and notes what it was asked."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.asked = pieces, b""
        self.num_sent = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.asked += connection.recv(1 << 20)
                try:
                    for piece in self.pieces:
                        connection.sendall(piece)
                        self.num_sent += 1
                except OSError:
                    pass


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
BOMB = gzip.compress(b"a" * (64 << 20))
TEXT = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n'
ENDLESS = 10_000


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((STREAM + b"\r\n", *[b"x" * 65536] * ENDLESS), "of a line"),
        ((STREAM + b"\r\ndata: ", *[b"x" * 65536] * ENDLESS), "of a line"),
        ((STREAM + b"\r\n", *[TEXT % (b"x" * 65000)] * ENDLESS), "has more than 1,000,000 characters"),
        ((STREAM + b"Content-Encoding: gzip\r\n\r\n", BOMB), "packed"),
        ((b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", *[b"x" * 65536] * ENDLESS), "failed with 500"),
        ((b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", BOMB), "packed"),
        ((b"HTTP/1.1 500 No\r\nX: " + b"x" * (1 << 20), *[b"x" * 65536] * ENDLESS), "broke"),
        ((STREAM + b"\r\n" + b'data: {"choices": [{"delta": {"content": {"a": 1}}}]}\n\n',), "not a chat completion"),
        ((STREAM + b"\r\n" + b"data: " + b"[" * 100_000 + b"\n\n",), "not a chat completion"),
        ((STREAM + b"\r\n" + b'data: {"usage": {"prompt_tokens": 1e400, "completion_tokens": 1}}\n\n',), "not a chat"),
        ((STREAM + b"\r\n" + b'data: {"usage": {"prompt_tokens": 1' + b"0" * 4000 + b"}}\n\n",), "not a chat"),
    ],
    ids=[
        "no line end",
        "no event end",
        "reply",
        "bomb",
        "refusal",
        "refusal bomb",
        "head",
        "content",
        "deep",
        "inf",
        "int",
    ],
)
def test_a_server_that_sends_without_end_is_left(pieces: tuple[bytes, ...], words: str) -> None:
    server = Raw(*pieces)
    reply = Reply(0.0)
    with pytest.raises(ApiError, match=words) as caught, ApiClient(server.url).stream(ask("x")) as chunks:
        for chunk in chunks:
            reply.add(chunk, 0.0)
    assert len(str(caught.value)) < 2_000
    assert server.num_sent < ENDLESS
    server.listener.close()


@pytest.mark.parametrize("packing", [b"", b"Content-Encoding: gzip\r\n"])
def test_a_list_of_models_without_end_is_left(packing: bytes) -> None:
    body = [BOMB] if packing else [b'{"data": ['] + [b'{"id": "m"},' * 5_000] * ENDLESS
    server = Raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + packing + b"\r\n", *body)
    for models in (ApiClient(server.url).models, lambda: asyncio.run(ApiClient(server.url).models_async())):
        with pytest.raises(ApiError, match=r"packed|has more than 1,048,576 bytes"):
            models()
    server.listener.close()


def test_the_first_of_several_keys_is_sent_and_nothing_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICUNA_API_KEY", "first-key, second-key")
    strange = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "HF_TOKEN")
    for name in strange:
        monkeypatch.setenv(name, f"value-of-{name.lower()}")
    server = Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"data": []}')
    assert ApiClient(server.url).models() == []
    assert b"Bearer first-key\r\n" in server.asked and b"second-key" not in server.asked
    assert b"value-of" not in server.asked
    server.listener.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("VICUNA_API_KEY", "first-key")
    elsewhere = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server = Raw(head.encode())
    with pytest.raises(ApiError, match=str(status)):
        ApiClient(server.url).models()
    with pytest.raises(ApiError, match=str(status)), ApiClient(server.url).stream(ask("x")):
        pass
    assert elsewhere.asked == b""


def test_a_proxy_of_the_environment_is_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"data": []}')
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ApiClient("http://models.invalid/v1").models() == []
    assert proxy.asked.startswith(b"GET http://models.invalid/v1/models ")
    server = Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"data": []}')
    before = proxy.asked
    assert ApiClient(server.url).models() == []
    assert proxy.asked == before
