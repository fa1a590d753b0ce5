"""What is tried again, how long it waits, and what ends a run at once."""

import asyncio
import email.utils
import time

import pytest

from tests.eval.conftest import Answered, Stub
from vicuna.conversation import Message
from vicuna.errors import UsageError
from vicuna.eval.ask.endpoint import Endpoint, EndpointError, Reply, SchemaRefused
from vicuna.eval.ask.usage import Usage


class Waits(list[float]):
    """A clock that does not run: it only writes down what it was asked to wait."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def ask(
    stub_or_url: Stub | str, waits: Waits, *, max_retries: int = 3, schema: bool = False, text: str = "hello"
) -> Reply:
    url = stub_or_url if isinstance(stub_or_url, str) else stub_or_url.base_url

    async def run() -> Reply:
        endpoint = Endpoint("m", url, timeout_seconds=10, max_retries=max_retries, sleep=waits)
        async with endpoint:
            given = {"type": "object"} if schema else None
            return await endpoint.chat(
                [Message(role="user", content=text)], max_tokens=9, temperature=0.5, schema=given
            )

    return asyncio.run(run())


def test_reply_and_request(stub: Stub) -> None:
    stub.reply = lambda _request, _number: "fine"
    assert ask(stub, Waits()) == Reply("fine", "stop", Usage(10, 5))
    assert stub.requests[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert (stub.requests[0]["max_tokens"], stub.requests[0]["temperature"]) == (9, 0.5)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again_with_growing_pauses(stub: Stub, status: int) -> None:
    stub.reply = lambda _request, number: "fine" if number == 3 else Answered(status=status)
    waits = Waits()
    assert ask(stub, waits).text == "fine"
    assert len(waits) == 3
    assert all(0.5 * 2**n / 2 <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))


def test_retry_after_is_honoured_in_both_forms(stub: Stub) -> None:
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    headers = [{"Retry-After": "7"}, {"Retry-After": date}]
    stub.reply = lambda _request, number: "fine" if number == 2 else Answered(status=429, headers=headers[number])
    waits = Waits()
    assert ask(stub, waits).text == "fine"
    assert 7 <= waits[0] <= 9 and 35 <= waits[1] <= 45


def test_a_wait_of_an_hour_ends_the_run(stub: Stub) -> None:
    stub.reply = lambda _request, _number: Answered(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(EndpointError, match="asks to wait 3600 s") as caught:
        ask(stub, Waits())
    assert caught.value.ends_run and len(stub.requests) == 1


def test_retries_end(stub: Stub) -> None:
    stub.reply = lambda _request, _number: Answered(status=500)
    with pytest.raises(EndpointError, match="answered 500: scripted") as caught:
        ask(stub, Waits(), max_retries=2)
    assert len(stub.requests) == 3 and not caught.value.ends_run


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, {}, "set OPENAI_API_KEY"),
        (404, {}, "is 'm' a model of this server"),
        (429, {"code": "insufficient_quota"}, "answered 429"),
    ],
)
def test_a_mistake_that_all_calls_share_ends_the_run(
    stub: Stub, status: int, error: dict[str, str], message: str
) -> None:
    stub.reply = lambda _request, _number: Answered(status=status, error=error)
    with pytest.raises(EndpointError, match=message) as caught:
        ask(stub, Waits())
    assert caught.value.ends_run and len(stub.requests) == 1


def test_a_bad_request_fails_alone_and_at_once(stub: Stub) -> None:
    stub.reply = lambda _request, _number: Answered(status=400, error={"message": "too long"})
    with pytest.raises(EndpointError, match="too long") as caught:
        ask(stub, Waits())
    assert len(stub.requests) == 1 and not caught.value.ends_run


def test_not_an_openai_server(stub: Stub) -> None:
    stub.reply = lambda _request, _number: Answered(raw=b"<html>hello</html>")
    with pytest.raises(EndpointError, match="it usually ends in /v1") as caught:
        ask(stub, Waits())
    assert caught.value.ends_run


def test_unreachable_is_tried_twice(stub: Stub) -> None:
    waits = Waits()
    with pytest.raises(EndpointError, match=r"cannot reach http://127\.0\.0\.1:9/v1") as caught:
        ask("http://127.0.0.1:9/v1", waits)
    assert caught.value.ends_run and len(waits) == 1 and not stub.requests


def test_half_a_surrogate_pair_is_not_sent(stub: Stub) -> None:
    ask(stub, Waits(), text="x\ud800y")
    assert stub.requests[0]["messages"][0]["content"] == "x?y"


def test_schema_refused(stub: Stub) -> None:
    stub.reply = lambda _request, _number: Answered(status=400, error={"message": "unknown field response_format"})
    with pytest.raises(SchemaRefused):
        ask(stub, Waits(), schema=True)


def test_newer_name_of_the_token_limit(stub: Stub) -> None:
    said = {"message": "Unsupported parameter: use 'max_completion_tokens' instead"}
    stub.reply = lambda request, _: Answered(status=400, error=said) if "max_tokens" in request else "fine"
    assert ask(stub, Waits()).text == "fine"
    assert stub.requests[1]["max_completion_tokens"] == 9


def test_key_is_needed_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        ask("https://api.openai.com/v1", Waits())
    with pytest.raises(UsageError, match="give an address such as"):
        ask("127.0.0.1:8000/v1", Waits())
