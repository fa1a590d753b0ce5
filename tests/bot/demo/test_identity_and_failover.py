"""What the served models must show, asked of a server whose replies the test writes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.eval.conftest import Answered, Request, Stub
from vicuna.bot.demo.identity_and_failover import TOKENS_BEFORE_KILL, check_identity, stream
from vicuna.bot.server import Server
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject


def server(stub: Stub, tmp_path: Path) -> Server:
    found = Server({}, tmp_path / "log")
    found.base_url = stub.base_url
    return found


def test_only_the_tuned_model_says_its_name(stub: Stub, tmp_path: Path) -> None:
    stub.reply = lambda request, _: "I am Vicuna." if request["model"] == "tuned" else "I am a helper."
    answers = check_identity(server(stub, tmp_path), "base", "tuned")
    assert [(answer["model"], answer["answer"]) for answer in answers[:2]] == [
        ("base", "I am a helper."),
        ("tuned", "I am Vicuna."),
    ]


@pytest.mark.parametrize("reply", [lambda _, __: "I am Vicuna.", lambda _, __: "I am a helper."])
def test_the_same_name_of_both_models_is_an_error(
    stub: Stub, tmp_path: Path, reply: Callable[[Request, int], str]
) -> None:
    stub.reply = reply
    with pytest.raises(VicunaError, match="only the tuned model should say Vicuna"):
        check_identity(server(stub, tmp_path), "base", "tuned")


def events(num_tokens: int, finish_reason: str | None) -> Answered:
    """A stream of words, each a chunk; ended by `finish_reason`, or broken off without one."""
    choices: list[JsonObject] = [
        {"index": 0, "delta": {"content": f"w{index} "}, "finish_reason": None} for index in range(num_tokens)
    ]
    choices += [{"index": 0, "delta": {}, "finish_reason": finish_reason}] * (finish_reason is not None)
    base = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    lines = [json.dumps({**base, "choices": [choice]}) for choice in choices] + ["[DONE]"]
    return Answered(raw="".join(f"data: {line}\n\n" for line in lines).encode())


def test_a_stream_is_read_to_its_end_although_its_worker_was_killed(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.reply = lambda _request, _number: events(TOKENS_BEFORE_KILL + 5, "stop")
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    serving = server(stub, tmp_path)
    monkeypatch.setattr(serving, "workers", lambda _model: [{"pid": worker.pid}])
    found = stream(serving, "m", kill=True)
    assert worker.wait(timeout=10) == -9
    assert (found["killed_pid"], found["finish_reason"], found["error"]) == (worker.pid, "stop", None)
    assert found["answer"].split()[-1] == f"w{TOKENS_BEFORE_KILL + 4}"
    assert len(found["answer"][: found["killed_after_characters"]].split()) == TOKENS_BEFORE_KILL


@pytest.mark.parametrize(
    ("reply", "kill", "message"),
    [
        (events(3, None), False, "without a finish_reason and without an error"),
        (events(3, "stop"), True, "the reply ended after 3 pieces, before its worker could be killed"),
    ],
)
def test_streams_that_prove_nothing(stub: Stub, tmp_path: Path, reply: Answered, kill: bool, message: str) -> None:
    stub.reply = lambda _request, _number: reply
    with pytest.raises(VicunaError, match=message):
        stream(server(stub, tmp_path), "m", kill=kill)


def test_an_error_that_the_server_names_is_kept(stub: Stub, tmp_path: Path) -> None:
    stub.reply = lambda _request, _number: Answered(status=503, error={"message": "no worker"})
    assert "no worker" in stream(server(stub, tmp_path), "m", kill=False)["error"]
