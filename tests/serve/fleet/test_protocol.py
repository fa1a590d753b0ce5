"""The frames as JSON, which workers and controllers of one version agree on."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.serve.builders import make_sampling
from vicuna.serve.fleet.protocol import (
    FROM_CONTROLLER,
    FROM_WORKER,
    Accepted,
    Cancel,
    ChatMessage,
    Frame,
    Hello,
    Ping,
    Pong,
    Refused,
    ReplyChunk,
    ReplyChunks,
    Submit,
    dump,
)

SAMPLING = make_sampling(temperature=0.5, top_p=0.9, top_k=40, seed=2**63)
SAMPLING_JSON = '"sampling":{"temperature":0.5,"top_p":0.9,"top_k":40,"seed":9223372036854775808}'
FROM_THE_CONTROLLER: list[tuple[Frame, str]] = [
    (
        Submit(
            request_id="r",
            messages=[ChatMessage(role="user", content="é")],
            sampling=SAMPLING,
            max_new_tokens=8,
            stop=["x"],
        ),
        '{"type":"submit","request_id":"r","messages":[{"role":"user","content":"é"}],"journal":[],"num_shown":0,'
        + SAMPLING_JSON
        + ',"max_new_tokens":8,"stop":["x"],"is_chat":true}',
    ),
    (
        Submit(request_id="r", prompt_ids=[1, 2], journal=[3], num_shown=1, sampling=SAMPLING, is_chat=False),
        '{"type":"submit","request_id":"r","prompt_ids":[1,2],"journal":[3],"num_shown":1,'
        + SAMPLING_JSON
        + ',"stop":[],"is_chat":false}',
    ),
    (Cancel(request_id="r"), '{"type":"cancel","request_id":"r"}'),
    (Ping(), '{"type":"ping"}'),
]
FROM_A_WORKER: list[tuple[Frame, str]] = [
    (
        Hello(
            worker_id="w", host="h", pid=1, model="m", fingerprint="f", engine="sim", template="plain",
            context_size=64, max_slots=2, running=["a"],
        ),
        '{"type":"hello","version":1,"worker_id":"w","host":"h","pid":1,"model":"m","fingerprint":"f","engine":"sim",'
        '"template":"plain","context_size":64,"max_slots":2,"running":["a"]}',
    ),
    (Accepted(request_id="r", prompt_ids=[1]), '{"type":"accepted","request_id":"r","prompt_ids":[1]}'),
    (
        ReplyChunks(
            steps=[
                ReplyChunk(request_id="r", index=0, token_ids=[5], text="a"),
                ReplyChunk(request_id="q", index=2, finish_reason="stop"),
            ]
        ),
        '{"type":"steps","steps":[{"request_id":"r","index":0,"token_ids":[5],"text":"a"},'
        '{"request_id":"q","index":2,"token_ids":[],"text":"","finish_reason":"stop"}]}',
    ),
    (
        Refused(request_id="r", code="busy", message="full"),
        '{"type":"refused","request_id":"r","code":"busy","message":"full"}',
    ),
    (Pong(num_others=3), '{"type":"pong","num_others":3}'),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "text"), [*FROM_THE_CONTROLLER, *FROM_A_WORKER], ids=lambda value: str(value)[:30])
def test_frames_are_this_json(frame: Frame, text: str) -> None:
    assert dump(frame) == text


def test_frames_are_read_back() -> None:
    assert [FROM_CONTROLLER.validate_json(text) for _, text in FROM_THE_CONTROLLER] == [
        frame for frame, _ in FROM_THE_CONTROLLER
    ]
    assert [FROM_WORKER.validate_json(text) for _, text in FROM_A_WORKER] == [frame for frame, _ in FROM_A_WORKER]


@pytest.mark.parametrize(
    "change",
    [
        ('"temperature":0.5', '"temperature":-1'),
        (',"seed":9223372036854775808', ""),
        ('"type":"submit"', '"type":"submit","more":1'),
        ('"role":"user"', '"role":"wizard"'),
    ],
)
def test_a_request_that_is_not_of_the_protocol_is_refused(change: tuple[str, str]) -> None:
    _, text = FROM_THE_CONTROLLER[0]
    assert change[0] in text
    with pytest.raises(ValidationError):
        FROM_CONTROLLER.validate_json(text.replace(*change))


@pytest.mark.parametrize(
    "change",
    [
        ("worker_id", "x" * 257),
        ("worker_id", "\x1b[2J"),
        ("host", "a\nb"),
        ("engine", "\u202e"),
        ("fingerprint", "f" * 257),
        ("model", "m" * 129),
        ("context_size", 10**30),
        ("max_slots", 10**9),
        ("pid", -1),
        ("running", ["r"] * 70_000),
        ("running", ["r" * 65]),
    ],
)
def test_what_a_worker_says_of_itself_is_short_and_plain(change: tuple[str, Any]) -> None:
    hello = json.loads(FROM_A_WORKER[0][1])
    assert hello["type"] == "hello" and change[0] in {**hello, "running": []}
    with pytest.raises(ValidationError):
        FROM_WORKER.validate_json(json.dumps({**hello, change[0]: change[1]}))


def test_the_first_fault_of_a_list_is_all_that_is_told() -> None:
    for frame in ('{"type":"accepted","request_id":"r","prompt_ids":[%s]}', '{"type":"steps","steps":[%s]}'):
        with pytest.raises(ValidationError) as caught:
            FROM_WORKER.validate_json(frame % ",".join(["-1"] * 100_000))
        assert caught.value.error_count() == 1
