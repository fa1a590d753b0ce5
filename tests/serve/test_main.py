"""What only processes show: `vicuna serve` starting, losing a worker to kill -9, and leaving nobody behind."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.programs import SLOW, Program, is_alive
from vicuna.io.secrets import Secret
from vicuna.serve.auth import token_for_model


def serve(start: Callable[..., Program], *arguments: str, **environment: str) -> Program:
    """`vicuna serve` with the sim engine, ready."""
    program = start("vicuna", "serve", "--engine", "sim", "--port", "0", "--no-web", *arguments, **environment)
    program.wait_until_ready()
    return program


def test_a_killed_worker_is_replaced_and_its_stream_completed_then_ctrl_c_ends_all(
    start: Callable[..., Program],
) -> None:
    program = serve(start, "--model", f"a={SLOW}", "--model", f"b={SLOW}")
    assert {row["model"] for row in program.workers()} == {"a", "b"}
    expected = program.text()
    [victim] = [row["pid"] for row in program.workers() if row["model"] == "a"]

    def kill_once(text: str) -> None:
        if len(text) > 10 and is_alive(victim):
            os.kill(victim, signal.SIGKILL)

    assert program.text(kill_once) == expected
    assert not is_alive(victim)
    [replacement] = [row["pid"] for row in program.workers() if row["model"] == "a"]
    assert replacement != victim
    log = program.log.read_text()
    assert f"worker a (pid {victim}) was killed by signal 9; starting it again" in log

    children = program.descendants()
    assert len(children) == 3 and replacement in children
    os.kill(program.process.pid, signal.SIGINT)
    assert program.process.wait(10) == 130
    assert not any(map(is_alive, children))
    assert "Traceback" not in program.log.read_text()


def test_a_killed_controller_comes_back_on_the_same_port_and_meets_its_workers(start: Callable[..., Program]) -> None:
    program = serve(start, "--model", f"a={SLOW}")
    [worker] = program.workers()
    [controller] = [pid for pid in program.descendants() if pid != worker["pid"]]
    os.kill(controller, signal.SIGKILL)
    assert program.text()  # the connection waits in the listening socket
    assert program.workers()[0]["worker_id"] == worker["worker_id"]


def test_nobody_outlives_a_killed_supervisor(start: Callable[..., Program]) -> None:
    program = serve(start, "--model", f"a={SLOW}")
    children = program.descendants()
    assert len(children) == 2
    program.process.kill()
    program.process.wait()
    program.until(lambda: not any(map(is_alive, children)), 5)


def test_sigterm_ends_all_quietly(start: Callable[..., Program]) -> None:
    program = serve(start, "--model", f"a={SLOW}", "--num-workers-per-model", "2", VICUNA_API_KEY="")
    children = program.descendants()
    assert len(children) == 3
    program.process.terminate()
    assert program.process.wait(10) == 0
    assert not any(map(is_alive, children))


def test_a_hung_worker_is_cut_off_and_ends(start: Callable[..., Program]) -> None:
    token = {"VICUNA_JOIN_TOKEN": "shared secret"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    controller = start("vicuna.serve.controller", "--port", port, "--token-gap-seconds", "0.5", **token)
    controller.url = f"http://127.0.0.1:{port}"
    worker = ("vicuna.serve.worker", "--engine", "sim", "--model-name", "a", "--controller", controller.url)
    good = start(*worker, "--model", SLOW, **token)
    controller.until(controller.has_logged("joined"))
    expected = controller.text()
    good.process.terminate()
    good.process.wait()
    hanging = start(*worker, "--model", f"{SLOW},hang_after=20", **token)
    controller.until(controller.has_logged("joined", times=2))
    good = start(*worker, "--model", SLOW, "--max-slots", "1", **token)
    controller.until(controller.has_logged("joined", times=3))
    # Both are idle and equally fast: the one that has been idle longest, the first, gets the stream.
    assert controller.text() == expected
    assert "was silent for 0.5 s" in controller.log.read_text()
    assert hanging.process.wait(10) == 1
    assert "says that this worker hung" in hanging.log.read_text()
    assert len(controller.workers()) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "/nowhere/model"], 1, "/nowhere/model: no such folder"),
        (["--model", "x=/a", "x=/b"], 2, "the name 'x' is used twice"),
        (["--model", "a b=/a"], 2, "name 'a b' has characters"),
        (["--engine", "sim", "--model", "a", "--host", "0.0.0.0"], 2, "set VICUNA_API_KEY"),
        (["--engine", "sim", "--model", "a=sped=3"], 2, "unknown setting 'sped'"),
        (["--engine", "sim", "--model", "a=length=-3"], 2, "length is '-3'"),
        (["--engine", "sim", "--model", "a", "--template", "vicunna"], 1, "vicunna"),
        (["--engine", "sim", "--model", "a", "--max-slots", "0"], 2, "--max-slots 0: give 1 or more"),
        (["--engine", "sim", "--model", "a", "--replacement-seconds", "nan"], 2, "give 0 or more"),
        (["--engine", "sim", "--model", "a", "--port", "70000"], 2, "--port 70000: choose a port"),
        (["--engine", "sim", "--model", "a", "--host", "no.such.invalid"], 2, "set VICUNA_API_KEY"),
        (["--engine", "sim", "--model", "a", "--web", "--port", "7001", "--web-port", "7001"], 2, "is the API's"),
        ([], 2, "--model is required"),
    ],
)
def test_mistakes_are_one_line_and_a_status(
    start: Callable[..., Program], arguments: list[str], status: int, message: str
) -> None:
    program = start("vicuna", "serve", "--port", "0", "--no-web", *arguments)
    assert program.process.wait(20) == status
    lines = [line for line in program.log.read_text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in program.log.read_text()
    assert program.output.read_text() == ""


def test_a_busy_port_is_named_with_its_flag(start: Callable[..., Program]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        program = start("vicuna", "serve", "--engine", "sim", "--model", "a", "--no-web", "--port", port)
        assert program.process.wait(20) == 1
        assert f":{port} " in program.log.read_text() and "--port" in program.log.read_text()
        assert len(program.log.read_text().splitlines()) == 1


def test_a_model_directory_without_tokenizer_ends_the_command(start: Callable[..., Program], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config: dict[str, Any] = {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 1, "intermediate_size": 8}))
    program = start("vicuna", "serve", "--model", str(folder), "--port", "0", "--no-web")
    assert program.process.wait(30) == 1
    log = program.log.read_text()
    assert "has no tokenizer" in log and "worker model could not start" in log and "Traceback" not in log


def test_the_page_is_announced_when_it_can_be_opened(start: Callable[..., Program]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = start("vicuna", "serve", "--engine", "sim", "--model", "a", "--port", "0", "--web-port", str(port))
    program.wait_until_ready()
    assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=20).status_code == 200


def environments(program: Program) -> dict[str, dict[str, str]]:
    """The environment of each child, by its module."""
    found = {}
    for pid in program.descendants():
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found[command[command.index("-m") + 1]] = dict(line.split("=", 1) for line in lines if "=" in line)
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_each_child_has_the_secrets_that_it_needs(start: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the master secret\n")
    others = {"OPENAI_API_KEY": "sk-stranger", "HF_TOKEN": "hf_stranger", "SOME_PASSWORD": "stranger"}
    keys = {"VICUNA_API_KEY": "key one, key two", "VICUNA_JOIN_TOKEN_FILE": str(tmp_path / "token")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = start(
        "vicuna", "serve", "--engine", "sim", "--model", "a", "--port", "0", "--web-port", port, **others, **keys
    )
    program.wait_until_ready()
    found = environments(program)
    assert set(found) == {"vicuna.serve.controller", "vicuna.serve.worker", "vicuna.serve.web"}
    for module, environment in found.items():
        assert not any("stranger" in value for value in environment.values()), module
        assert "VICUNA_JOIN_TOKEN_FILE" not in environment
        assert (environment.get("VICUNA_API_KEY") is None) == (module == "vicuna.serve.worker")
    assert found["vicuna.serve.controller"]["VICUNA_JOIN_TOKEN"] == "the master secret"
    own = token_for_model(Secret("the master secret"), "a").reveal()
    assert found["vicuna.serve.worker"]["VICUNA_JOIN_TOKEN"] == own
    assert "VICUNA_JOIN_TOKEN" not in found["vicuna.serve.web"]
