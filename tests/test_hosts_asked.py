"""No verb, server or engine asks a host that the user did not name: look-ups and connections are recorded, and refused.

A hook of the interpreter (`sys.addaudithook`) sees them in the command and in every Python process that it starts.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.eval.conftest import Stub, stub
from tests.serve.programs import Program
from tests.train.builders import make_records, save_llama, write_records
from vicuna import cli
from vicuna.material import material

HOOK = """
import os, sys
def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if not isinstance(address, tuple):
            return
        host = address[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host not in ("", "None", "localhost", "::1", "0.0.0.0", "::") and not host.startswith("127."):
        with open(os.environ["ASKED_HOSTS"], "a") as file:
            file.write(host + "\\n")
        raise OSError("this machine has no network")
sys.addaudithook(hook)
"""
# Run one after the other in one process: `[["data", ...], ...]` is its argument.
DRIVER = "import json, sys; from vicuna import cli; sys.exit(max(cli.main(words) for words in json.loads(sys.argv[1])))"
__all__ = ["stub"]
OWN_TESTS = {"serve": "test_serving", "chat": "test_serving", "demo": "its stages are the other verbs"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables under which every Python process has the hook."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(tmp_path / "hook"), str(Path(__file__).parent.parent)])
    return {"PYTHONPATH": path, "ASKED_HOSTS": str(tmp_path / "asked"), "VICUNA_HOME": str(tmp_path / "home")}


@pytest.fixture
def model(tmp_path: Path, bpe_tokenizer_directory: Path) -> Path:
    """A tiny model."""
    return save_llama(tmp_path / "model", bpe_tokenizer_directory)


def asked(environment: dict[str, str]) -> list[str]:
    path = Path(environment["ASKED_HOSTS"])
    return path.read_text().split() if path.exists() else []


def run(environment: dict[str, str], *commands: list[object]) -> str:
    words = json.dumps([[str(word) for word in command] for command in commands])
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VICUNA_", "HF_", "OPENAI_"))}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, words], env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_hook_sees_what_is_asked(environment: dict[str, str]) -> None:
    code = (
        "import socket, subprocess, sys\n"
        "for ask in (lambda: socket.create_connection(('host.invalid', 80)),\n"
        "            lambda: socket.getaddrinfo('a.invalid', 1),\n"
        "            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))):\n"
        "    try: ask()\n"
        "    except OSError as error: print(error)\n"
        "socket.create_server(('127.0.0.1', 0)).close()"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    done = subprocess.run(
        [sys.executable, "-c", child], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.count("this machine has no network") == 3, done.stderr
    assert asked(environment) == ["host.invalid", "a.invalid", "192.0.2.1"]


def test_every_verb_is_tried() -> None:
    source = Path(__file__).read_text("utf-8")
    for verb in cli.VERBS:
        assert f'["{verb}"' in source or verb in OWN_TESTS, f"{verb}: add it here"


def test_data(environment: dict[str, str], model: Path, tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    tokens = ["--tokenizer", model, "--template", "chatml", "--max-tokens", 512]
    run(
        environment,
        ["data", material("data/sharegpt_sample.json"), "--output-dir", cleaned, "--workers", 2, *tokens],
        ["data", "stats", cleaned],
        ["data", "show", "--in", cleaned, "--limit", 1],
        ["data", "why", "sample-0005", "--in", cleaned],
        ["data", "sample", cleaned, "--count", 2, "--output", tmp_path / "some.jsonl"],
        ["data", "merge", cleaned, "--output", tmp_path / "merged.jsonl"],
        ["data", "lists"],
        ["template", "list"],
        ["template", "show", "hf", "--tokenizer", model, "--record", tmp_path / "some.jsonl"],
    )
    assert asked(environment) == []


def test_training(environment: dict[str, str], model: Path, tmp_path: Path) -> None:
    records = write_records(tmp_path / "records.jsonl", make_records(8))
    given = ["--model", model, "--data", records, "--template", "vicuna_v1.1", "--no-bf16"]
    run(
        environment,
        ["train", *given, "--output-dir", tmp_path / "run", "--max-steps", 2],
        ["train", *given, "--output-dir", tmp_path / "lora", "--max-steps", 1, "--lora"],
        ["train", "--plan", "--model-shape", "llama-7b", "--gpu", "a100-80gb:8", "--rows-per-step", 128],
    )
    assert asked(environment) == []


def test_weights(environment: dict[str, str], model: Path, bpe_tokenizer_directory: Path, tmp_path: Path) -> None:
    tuned = save_llama(tmp_path / "tuned", bpe_tokenizer_directory, seed=1)
    delta, made, gguf = tmp_path / "delta", tmp_path / "made", tmp_path / "model.gguf"
    run(
        environment,
        ["make-delta", "--base", model, "--target", tuned, "--delta", delta],
        ["apply-delta", "--base", model, "--target", made, "--delta", delta],
        ["weights", "verify", made],
        ["weights", "inspect", made],
        ["weights", "cast", model, "--target", tmp_path / "cast", "--dtype", "bfloat16"],
        ["export", "gguf", "--model", model, "--output", gguf, "--type", "f16"],
        ["export", "check", "--model", model, "--gguf", gguf],
        ["import", "gguf", gguf, "--output-dir", tmp_path / "imported"],
    )
    assert asked(environment) == []


def test_evaluation(environment: dict[str, str], stub: Stub, tmp_path: Path) -> None:
    answers, judgments = tmp_path / "answers.jsonl", tmp_path / "judgments.jsonl"
    asking = ["eval", "answer", "--base-url", stub.base_url, "--num-questions", 8, "--output", answers]
    judge = ["eval", "judge", "--mode", "pair", "--base-url", stub.base_url, "--judge", "j", "--output", judgments]
    run(
        environment,
        [*asking, "--model", "one"],
        [*asking, "--model", "two"],
        [*judge, "--answers", answers],
        ["eval", "report", "--judgments", judgments, "--output", tmp_path / "report.html"],
    )
    assert len(stub.requests) == 8 + 8 + 2 * 8
    assert asked(environment) == []


@pytest.mark.parametrize("engine", ["native", "sim"])
def test_serving(environment: dict[str, str], model: Path, engine: str, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")
    (tmp_path / "serve").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        web_port = free.getsockname()[1]
    what = f"m={model}" if engine == "native" else "m=length=8"
    words = ("serve", "--model", what, "--engine", engine, "--port", "0", "--web-port", str(web_port))
    program = Program(tmp_path / "serve", "vicuna", *words, **environment)
    try:
        program.wait_until_ready()
        with httpx.Client(trust_env=False, timeout=30) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
            assert client.post(f"{program.url}/v1/chat/completions", json=body).status_code == 200
            page = client.get(f"http://127.0.0.1:{web_port}/")
            assert page.status_code == 200
        chat = subprocess.run(
            [sys.executable, "-m", "vicuna", "chat", "--api-url", f"{program.url}/v1", "--style", "simple"],
            input="hello\n",
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert chat.returncode == 0, chat.stderr
    finally:
        program.process.terminate()
        program.process.wait(timeout=30)
    assert asked(environment) == []
