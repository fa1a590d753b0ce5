"""Escapes in every id, name, path, key, message, model name, error text and manifest: none reaches the terminal raw.

Every verb runs in this process with small inputs made by somebody who means ill; what it prints is looked at.
"""

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import JOIN_TOKEN, start_cluster
from tests.serve.test_controller import send_frames
from tests.train.builders import save_llama
from tests.weights.builders import numbers, tuned, write_model
from tests.weights.files.test_manifest import rewrite
from vicuna import cli
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.io import terminal
from vicuna.io.files import sha256_file
from vicuna.serve.fleet.protocol import MODEL_HEADER
from vicuna.weights.files.manifest import DELTA_MANIFEST

# The clipboard, the screen, the title, a line overwritten, the reading direction, what has no width, a C1 introducer.
EVIL = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;t\x07over\rwritten\u202egnp\u2066x\x9b31mz\u200b\ufeff\x08\x7f"
LONG = EVIL + "y" * 1_000_000
FILE = EVIL.replace("/", "")
LARGEST_OUTPUT = 50_000  # of a verb: nothing overlong is printed whole


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb of `vicuna`, and look at all that it prints."""

    def run(*words: object, status: tuple[int, ...] = (0, 1, 2, 3, EXIT_SET_ASIDE)) -> str:
        capsys.readouterr()  # what the test itself made a library print
        assert cli.main([str(word) for word in words]) in status
        return check(capsys)

    return run


def check(capsys: pytest.CaptureFixture[str]) -> str:
    text = "".join(capsys.readouterr())
    assert text == terminal.printable_lines(text, limit=sys.maxsize), "raw characters were printed"
    assert len(text) < LARGEST_OUTPUT
    return text


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(identifier: str, text: str = EVIL) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text + " indeed, and more words"}]
    return {"id": identifier, "messages": turns, "source": EVIL, EVIL: EVIL}


def test_data(tmp_path: Path, look: Callable[..., str]) -> None:
    source = lines(
        tmp_path / f"{FILE}.jsonl", record(EVIL), record(LONG, "short"), {EVIL: EVIL}, [EVIL], record("a", "b")
    )
    source.write_text(source.read_text() + EVIL + "\n")
    assert r"\x1b" in look("data", source, "--output-dir", tmp_path / FILE)
    folder = tmp_path / FILE
    for words in (
        ["why", EVIL],
        ["why", LONG],
        ["show", EVIL],
        ["show", "--limit", 1],
        ["stats"],
        ["show", "--rule", EVIL],
    ):
        look("data", *words, *([folder] if words[0] == "stats" else ["--in", folder]))
    for rule in json.loads((folder / "manifest.json").read_text())["counts"]["rules"]:
        look("data", "show", "--rule", rule, "--in", folder)
    look("data", "stats", source)
    look("data", "stats", "--json", source)
    look("data", "sample", source, "--count", 1, "--output", tmp_path / f"{FILE}.sample")
    look("data", "merge", source, source, "--output", tmp_path / f"{FILE}.merged")
    look("data", "lists", EVIL)
    assert r"\x1b" in look("data", tmp_path / f"{FILE}.none", "--output-dir", tmp_path / "out")


def test_the_command_line(tmp_path: Path, look: Callable[..., str]) -> None:
    for words in (
        [EVIL],
        ["data", f"--{EVIL}"],
        ["train", f"--{EVIL}=1"],
        ["weights", EVIL],
        ["eval", EVIL],
        ["data", "why"],
    ):
        look(*words, status=(1, 2))
    (tmp_path / "c.json").write_text(json.dumps({EVIL: EVIL, "data": EVIL}))
    look("train", "--config", tmp_path / "c.json", status=(2,))
    look("train", "--config", tmp_path / FILE, status=(2,))
    assert look("train", "--model", tmp_path / LONG[:5000], "--output-dir", "x", "--data", EVIL, "--debug", status=(1,))


def test_template(tmp_path: Path, bpe_tokenizer_directory: Path, look: Callable[..., str]) -> None:
    path = lines(tmp_path / FILE, record(EVIL))
    assert r"\x1b]52" in look("template", "show", "vicuna_v1.1", "--record", path)
    assert look("template", "show", "vicuna_v1.1", "--record", path, "--tokenizer", bpe_tokenizer_directory)
    look("template", "show", EVIL)
    look("template", "show", "chatml", "--record", lines(tmp_path / "b", {"messages": [{"role": EVIL, "content": 1}]}))


def test_weights(tmp_path: Path, look: Callable[..., str]) -> None:
    weights = numbers(0)
    base = write_model(tmp_path / f"base{FILE}", weights)
    target = write_model(tmp_path / f"target{FILE}", tuned(weights))
    (target / "vicuna_template.json").write_text(json.dumps({"template": "chatml"}))
    (target / f"notes{FILE}").write_text("x")
    delta, made = tmp_path / f"delta{FILE}", tmp_path / f"made{FILE}"
    look("make-delta", "--base", base, "--target", target, "--delta", delta, status=(0,))
    for words in (
        ["--base", base, "--target", made, "--delta", delta],
        ["--base", target, "--target", "x", "--delta", delta],
    ):
        look("apply-delta", *words)
    look("weights", "verify", made)
    look("weights", "inspect", delta, status=(0,))
    known = sha256_file(delta / DELTA_MANIFEST)
    rewrite(delta / DELTA_MANIFEST, lambda value: value.update(tool=EVIL, template=EVIL, sources={EVIL: {EVIL: EVIL}}))
    text = (delta / "SHA256SUMS").read_text()
    (delta / "SHA256SUMS").write_text(text.replace(known, sha256_file(delta / DELTA_MANIFEST)))
    assert r"\x1b]52" in look("weights", "inspect", delta, status=(0,))
    look("weights", "inspect", delta, "--json", status=(0,))
    look("weights", "verify", delta)
    for name in ("files", "shards", "tensors"):
        rewrite(delta / DELTA_MANIFEST, lambda value, name=name: value.update({name: {EVIL: LONG}}))
        look("weights", "inspect", delta, status=(1, 3))
    (delta / DELTA_MANIFEST).write_text(EVIL)
    look("weights", "verify", delta, "--json")
    look("weights", "inspect", tmp_path / f"none{FILE}")
    look("weights", "cast", base, "--target", tmp_path / f"cast{FILE}", "--dtype", "float32")
    adapter = tmp_path / f"adapter{FILE}"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": LONG, "base_model_name_or_path": EVIL}))
    look("weights", "inspect", adapter, status=(1,))
    look("weights", "merge-lora", "--base", base, "--adapter", adapter, "--target", tmp_path / "m", status=(1, 2))


@pytest.mark.parametrize("key", ["model_type", "hidden_act", "hidden_size", "rope_scaling", "torch_dtype", EVIL])
def test_models(tmp_path: Path, bpe_tokenizer_directory: Path, key: str, look: Callable[..., str]) -> None:
    model = save_llama(tmp_path / f"model{FILE}", bpe_tokenizer_directory)
    (model / "README.md").write_text(f'---\nlicense: "{chr(92)}x1b[2J"\nmodel_name: [{EVIL}\n---\n')
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, key: LONG}))
    look("export", "gguf", "--model", model, "--output", tmp_path / f"{FILE}.gguf", "--type", "f16")
    look("weights", "inspect", model)
    look("train", "--plan", "--model", model, "--num-tokens", 1000, "--num-conversations", 10)
    (model / "tokenizer.json").write_text(EVIL)
    look("template", "show", "chatml", "--tokenizer", model, status=(1,))
    look("import", "gguf", model / "tokenizer.json", "--output-dir", tmp_path / "i", status=(1, 2, 3))


class Handler(BaseHTTPRequestHandler):
    """A server that means ill: its models' names, its replies and its errors."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": EVIL, "object": "model"}, {"id": LONG, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "error" in request["messages"][-1]["content"] or request["model"] == "broken":
            self.answer(400, {"error": {"message": f"{LONG} {self.headers.get('authorization')}", "code": EVIL}})
        elif request.get("stream"):
            chunk = {"choices": [{"index": 0, "delta": {"content": EVIL}, "finish_reason": None}]}
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": EVIL}]}
            self.answer(
                200, "".join(f"data: {json.dumps(event)}\n\n" for event in (chunk, chunk, end)) + "data: [DONE]\n\n"
            )
        else:
            message = {"role": "assistant", "content": EVIL}
            self.answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": EVIL}], "model": EVIL})

    def answer(self, status: int, value: Any) -> None:
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("content-type", "text/event-stream" if isinstance(value, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
        http.shutdown()


@pytest.mark.parametrize("style", ["simple", "programmatic", "rich"])
def test_chat(
    server: str, style: str, tmp_path: Path, look: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path))
    questions = [
        "hello",
        "an error",
        "/model",
        "/help",
        f"/model {EVIL}",
        f"/{EVIL}",
        f"/load {tmp_path / FILE}",
        "/system x",
    ]
    asked = "\n".join(json.dumps(line) if style == "programmatic" else line for line in questions)
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked + "\n"))
    monkeypatch.setenv("VICUNA_API_KEY", "a-key-that-is-echoed")
    text = look("chat", "--api-url", server, "--style", style)
    assert "a-key-that-is-echoed" not in text
    assert "over" in text


def test_eval(server: str, tmp_path: Path, look: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-that-is-echoed")
    questions = lines(
        tmp_path / f"questions{FILE}.jsonl",
        {"question_id": EVIL, "category": EVIL, "text": EVIL},
        {"question_id": "b", "category": "x", "text": "y"},
    )
    answers = tmp_path / f"answers{FILE}.jsonl"
    call = ["--base-url", server, "--questions", questions, "--max-retries", 0]
    assert "a-key-that-is-echoed" not in look("eval", "answer", *call, "--model", "broken", "--output", answers)
    for model in (EVIL, f"{EVIL}2"):
        look("eval", "answer", *call, "--model", model, "--output", answers)
    judgments = tmp_path / f"judgments{FILE}.jsonl"
    judge = ["judge", "--answers", answers, "--questions", questions, "--base-url", server, "--max-retries", 0]
    look("eval", *judge, "--judge", EVIL, "--output", judgments)
    look("eval", "report", "--judgments", judgments, "--output", tmp_path / f"{FILE}.html")
    lines(judgments, {"question_id": EVIL, EVIL: LONG})
    look("eval", "report", "--judgments", judgments, "--output", tmp_path / f"{FILE}2.html")
    look("eval", "answer", "--base-url", f"http://{EVIL}", "--model", "m", "--output", answers, status=(1, 2))
    text = look(
        "eval", "answer", "--base-url", "http://me:pass@word@127.0.0.1:1/v1", "--model", "m", "--output", answers
    )
    assert "pass" not in text


async def test_the_controllers_log(capsys: pytest.CaptureFixture[str]) -> None:
    hello = {"type": "hello", "version": 1, "worker_id": LONG[:100_000], "host": EVIL, "pid": 1, "model": "sim"}
    hello |= {"fingerprint": EVIL, "engine": EVIL, "template": "t", "context_size": 1, "max_slots": 1}
    headers = {"Authorization": f"Bearer {JOIN_TOKEN.reveal()}", MODEL_HEADER: "sim"}
    async with start_cluster() as cluster:
        await cluster.add_worker()
        for frames in (
            [EVIL],
            [json.dumps({"type": EVIL, EVIL: EVIL})],
            [json.dumps(hello), json.dumps({"type": EVIL})],
        ):
            await send_frames(cluster, frames, headers)
        await cluster.until(lambda: len(cluster.fleet.links) == 1)
    assert r"\x1b]52" in check(capsys)
