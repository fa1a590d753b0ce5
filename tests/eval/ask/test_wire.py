"""What a server is sent and what is taken from it, whatever the environment names and whatever it replies."""

import asyncio
import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vicuna.conversation import Message
from vicuna.errors import UsageError
from vicuna.eval.ask import wire
from vicuna.eval.ask.endpoint import MAX_REQUEST_BYTES, Endpoint, EndpointError, Reply

KEY = "sk-verysecretkey-0123456789abcdef"
COMPLETION = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}


@contextmanager
def serving(reply: Callable[[bytes], Iterator[bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads each request's head and sends what `reply` makes of it, byte for byte."""
    heads: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (data := connection.recv(1 << 16)):
                    head += data
                size = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                while len(head) < head.index(b"\r\n\r\n") + 4 + size and (data := connection.recv(1 << 16)):
                    head += data
                heads.append(head)
                try:
                    for chunk in reply(head):
                        connection.sendall(chunk)
                except OSError:
                    pass  # the client has enough

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", heads
    finally:
        listener.close()


def answered(body: bytes, *headers: str, status: str = "200 OK") -> Callable[[bytes], Iterator[bytes]]:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return lambda _: iter(["\r\n".join(lines).encode() + body])


def ask(url: str, text: str = "hello", *, timeout_seconds: float = 20) -> Reply:
    async def no_wait(_: float) -> None:
        pass

    async def run() -> Reply:
        async with Endpoint("m", url, timeout_seconds=timeout_seconds, max_retries=1, sleep=no_wait) as endpoint:
            return await endpoint.chat([Message(role="user", content=text)], max_tokens=9, temperature=0)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_only_named_headers_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORG_ID", "PROJECT_ID", "ADMIN_KEY", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: of-the-environment\nAuthorization: of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/of-the-environment")
    with serving(answered(json.dumps(COMPLETION).encode())) as (url, heads):
        assert ask(url).text == "fine"
    lines = heads[0].decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    assert {line.partition(":")[0].lower() for line in lines} <= wire.SENT_HEADERS
    assert (
        "of-the-environment" not in heads[0].decode()
        and f"authorization: Bearer {KEY}".lower() in heads[0].decode().lower()
    )


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_no_redirect_is_followed(status: str) -> None:
    with serving(answered(json.dumps(COMPLETION).encode())) as (elsewhere, others):
        with (
            serving(answered(b"", f"Location: {elsewhere}/chat/completions", status=status)) as (url, heads),
            pytest.raises(EndpointError, match="no redirect is followed") as caught,
        ):
            ask(url)
        assert caught.value.ends_run and len(heads) == 1 and not others


def endless(head: str, chunk: bytes) -> Callable[[bytes], Iterator[bytes]]:
    def reply(_: bytes) -> Iterator[bytes]:
        yield head.encode()
        while True:
            yield chunk

    return reply


ZEROS = gzip.compress(b"0" * (64 << 20))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (endless("HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "longer than the limit of 4194304 bytes"),
        (endless("HTTP/1.1 500 No\r\n\r\n", b"x" * 65536), "longer than the limit of 4194304 bytes"),
        (answered(b"x" * 5_000_000), "has 5000000 bytes, above the limit"),
        (answered(ZEROS, "Content-Encoding: gzip"), "longer than the limit of 4194304 bytes"),
        (answered(b"not gzip at all", "Content-Encoding: gzip"), "not packed as it says"),
        (answered(b"x", "Content-Encoding: br"), "packed as br, which was not asked for"),
        (answered(b"{}", *(f"X-{n}: 1" for n in range(201))), "headers, above the limit of 200"),
        (endless("HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n"), "cannot reach"),
        (endless("HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), "cannot reach"),
        (answered(b"[" * 1_000_000), "does not answer like an OpenAI-compatible server .RecursionError"),
        (answered(b'{"choices": [{"message": {"content": {"a": 1}}}]}'), "does not answer like an OpenAI"),
        (answered(b'{"choices": {}}'), "does not answer like an OpenAI"),
        (answered(b'{"choices": [3]}'), "does not answer like an OpenAI"),
        (answered(b"\xff\xfe\xfa"), "does not answer like an OpenAI"),
        (answered(b"", "Retry-After: Mon, 99 Foo 99999 99:99:99 GMT", status="429 Slow"), "answered 429"),
    ],
)
def test_hostile_replies_are_one_line(reply: Callable[[bytes], Iterator[bytes]], message: str) -> None:
    with serving(reply) as (url, _), pytest.raises(EndpointError, match=message) as caught:
        ask(url)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_packed_reply_of_a_usual_size_is_read() -> None:
    body = gzip.compress(json.dumps(COMPLETION).encode())
    with serving(answered(body, "Content-Encoding: gzip")) as (url, _):
        assert ask(url).text == "fine"


def test_a_reply_that_drips_ends_with_the_time_limit() -> None:
    go_on = threading.Event()

    def drip(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while not go_on.wait(0.05):
            yield b" "

    with serving(drip) as (url, _), pytest.raises(EndpointError, match="did not answer in time"):
        ask(url, timeout_seconds=0.5)
    go_on.set()


@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "401 No", "500 No"])
def test_an_echoed_key_is_not_shown(status: str) -> None:
    echo = {"error": {"message": f"got Bearer {KEY}"}, "choices": [{"message": {"content": f"key {KEY} ok"}}]}
    with serving(answered(json.dumps(echo).encode(), status=status)) as (url, _):
        if status == "200 OK":
            said = ask(url).text
            assert said == "key [secret] ok"
        else:
            with pytest.raises(EndpointError) as caught:
                ask(url)
            said = str(caught.value)
    assert KEY not in said and KEY[3:] not in said


def test_login_in_the_address_is_sent_and_not_shown() -> None:
    with serving(answered(b"{}", status="403 No")) as (url, heads), pytest.raises(EndpointError) as caught:
        ask(url.replace("://", "://me:hunter2secret@") + "?token=tok-abcdefgh")
    assert b"basic" in heads[0].lower() and KEY.encode() not in heads[0]
    assert not any(part in str(caught.value) for part in ("hunter2", "me:", "tok-abc")) and "127.0.0.1" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://h/v1\r\nX: y",
        "http://h/\x00",
        "http://h/ v1",
        "http://me:hunter2secret@h:99999/v1",
        "http://h\\@i/",
        "h",
        "http://h/\u202e",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="give an address such as") as caught:
        ask(url)
    assert "\r" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_usage_that_is_none_is_not_known() -> None:
    for usage in (
        {"prompt_tokens": -1, "completion_tokens": "x"},
        {"prompt_tokens": 1e400},
        [1],
        None,
        {"prompt_tokens": True},
    ):
        body = {**COMPLETION, "usage": usage}
        with serving(answered(json.dumps(body).encode())) as (url, _):
            if isinstance(usage, list):
                with pytest.raises(EndpointError):
                    ask(url)
            else:
                assert ask(url).usage.prompt_tokens is None and ask(url).usage.completion_tokens is None


def test_a_conversation_above_the_limit_is_not_sent() -> None:
    with serving(answered(json.dumps(COMPLETION).encode())) as (url, heads):
        with pytest.raises(EndpointError, match="above the limit of 4,194,304 and not sent") as caught:
            ask(url, "x" * (MAX_REQUEST_BYTES + 1))
        assert caught.value.is_refused and not heads
