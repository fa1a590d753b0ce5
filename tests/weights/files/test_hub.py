"""Models by hub id, from a hub of our own on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.hub import needed_files

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class FakeHub(ThreadingHTTPServer):
    """Serves folders as repositories, in the few answers of the hub that its library asks for."""

    daemon_threads = True

    def __init__(self, repositories: dict[tuple[str, str], Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories  # (id, commit) -> folder
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, is_head: bool) -> None:
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.asked.append(path)
        for (repository, commit), folder in self.server.repositories.items():
            names = [name for name, sha in COMMITS.items() if sha == commit] + [commit]
            files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            for revision in names:
                if path in (f"api/models/{repository}/revision/{revision}", f"api/models/{repository}"):
                    siblings = [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()]
                    return self._json({"id": repository, "sha": commit, "siblings": siblings, "tags": []})
                if path == f"api/models/{repository}/tree/{revision}":
                    return self._json(
                        [
                            {"type": "file", "path": n, "size": f.stat().st_size, "oid": "0" * 40}
                            for n, f in files.items()
                        ]
                    )
                name = path.removeprefix(f"{repository}/resolve/{revision}/")
                if name in files:
                    return self._file(files[name].read_bytes(), commit, is_head=is_head)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, data: bytes, commit: str, *, is_head: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    base = write_model(tmp_path / "repositories" / "base", numbers(0), shard_bytes=600)
    (base / "pytorch_model.bin").write_bytes(b"not needed beside safetensors")
    (base / "modeling_evil.py").write_text("never fetched")
    old = write_model(tmp_path / "repositories" / "old", numbers(5))
    server = FakeHub({("owner/base", COMMITS["main"]): base, ("owner/base", COMMITS["old"]): old})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(hub: FakeHub, tmp_path: Path, module: str, *flags: object, **env: str) -> "subprocess.CompletedProcess[str]":
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
    settings["HF_HUB_OFFLINE"] = "0"  # the suite is offline elsewhere
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)],
        env={**os.environ, **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env},
        capture_output=True,
        text=True,
    )


def test_base_by_id_pinned_in_the_manifest(hub: FakeHub, tmp_path: Path) -> None:
    target = write_model(tmp_path / "target", tuned(numbers(0)))
    delta = tmp_path / "delta"
    done = run(hub, tmp_path, "vicuna.make_delta", "--base", "owner/base", "--target", target, "--delta", delta)
    assert done.returncode == 0, done.stderr
    assert f"downloading owner/base at {'a' * 40}" in done.stderr
    manifest = json.loads((delta / "vicuna_delta.json").read_text())
    assert manifest["sources"] == {"base": {"id": "owner/base", "revision": "a" * 40}}
    assert not any("pytorch_model" in path or path.endswith(".py") for path in hub.asked)
    # The delta as a repository too, and the base as pinned.
    hub.repositories["owner/delta", COMMITS["main"]] = delta
    flags = ["--base", f"owner/base@{'a' * 40}", "--delta", "owner/delta", "--target", tmp_path / "again"]
    done = run(hub, tmp_path, "vicuna.apply_delta", *flags)
    assert done.returncode == 0, done.stderr
    with CheckpointReader(target) as one, CheckpointReader(tmp_path / "again") as two:
        assert all(one.read(name) == two.read(name) for name in one.tensors)
    # Offline, from the cache.
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and "model.norm.weight" in done.stdout, done.stderr


def test_another_revision_is_another_base(hub: FakeHub, tmp_path: Path) -> None:
    target = write_model(tmp_path / "target", tuned(numbers(0)))
    delta = tmp_path / "delta"
    assert (
        run(hub, tmp_path, "vicuna.make_delta", "--base", "owner/base", "--target", target, "--delta", delta).returncode
        == 0
    )
    flags = ["--base", "owner/base@old", "--delta", delta, "--target", tmp_path / "again"]
    done = run(hub, tmp_path, "vicuna.apply_delta", *flags)
    assert done.returncode == 3 and "is not this delta's base" in done.stderr


def test_a_plan_asks_for_no_weights(hub: FakeHub, tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1000, **shape}
    (hub.repositories["owner/base", COMMITS["main"]] / "config.json").write_text(json.dumps(config))
    flags = ["--plan", "--json", "--model", "owner/base", "--gpu", "a100-80gb:8"]
    done = run(hub, tmp_path, "vicuna.train", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "owner/base"
    assert any("config.json" in path for path in hub.asked)
    assert not any(".safetensors" in path for path in hub.asked)


def test_what_the_hub_does_not_have(hub: FakeHub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/nothing")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "owner/nothing is no folder here, and the hub does not give it (RepositoryNotFoundError" in done.stderr
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "the hub does not give it (Connect" in done.stderr
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "is not in the hub's cache, and HF_HUB_OFFLINE is set" in done.stderr


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["a.safetensors", "pytorch_model.bin", "LICENSE", "x.py", "gguf/x.gguf"], ["LICENSE", "a.safetensors"]),
        (["pytorch_model.bin", "tokenizer.model", "training_args.pt"], ["pytorch_model.bin", "tokenizer.model"]),
        (["vicuna_delta.json", "weights.vdelta", "SHA256SUMS", "files/a.json", "files/deep/b"],
         ["SHA256SUMS", "files/a.json", "vicuna_delta.json", "weights.vdelta"]),
        (["README.md"], []),
    ],
)  # fmt: skip
def test_only_what_is_needed_is_fetched(names: list[str], needed: list[str]) -> None:
    assert needed_files(names) == needed
