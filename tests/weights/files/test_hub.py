"""Models by hub id, from a hub of our own on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import COMMITS, FakeHub, serving
from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader
from vicuna.weights.files.hub import needed_files


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    base = write_model(tmp_path / "repositories" / "base", numbers(0), shard_bytes=600)
    (base / "pytorch_model.bin").write_bytes(b"not needed beside safetensors")
    (base / "modeling_evil.py").write_text("never fetched")
    old = write_model(tmp_path / "repositories" / "old", numbers(5))
    with serving({("owner/base", COMMITS["main"]): base, ("owner/base", COMMITS["old"]): old}) as server:
        yield server


def run(hub: FakeHub, tmp_path: Path, module: str, *flags: object, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)],
        env={**os.environ, **hub.environment(tmp_path / "cache"), **env},
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


def test_a_second_set_of_weights_stays_there(hub: FakeHub, tmp_path: Path) -> None:
    folder = hub.repositories["owner/base", COMMITS["main"]]
    assert (folder / INDEX_NAME).exists()
    for name in ("consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "model.safetensors"):
        (folder / name).write_bytes(b"the same weights once more")
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base")
    assert done.returncode == 0, done.stderr
    asked = "".join(hub.asked)
    assert "model-00001-of-" in asked and "consolidated" not in asked and "model.safetensors/" not in asked


REFUSALS = {
    "gated": (403, "GatedRepo", "owner/base is gated: accept its terms on http://127.0.0.1"),
    "private": (401, "RepoNotFound", "owner/base is private, or there is no such repository"),
    "missing": (404, "RepoNotFound", "owner/base is neither a folder here nor a repository on the hub"),
    "token": (403, "", "the hub refuses owner/base (status 403): HF_TOKEN is wrong or may not read it"),
    "broken": (500, "", "the hub does not give owner/base ("),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_each_refusal_has_a_sentence_of_its_own(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    status, code, said = REFUSALS[kind]
    hub.refusals["owner/base"] = (status, code)
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {said}")


def test_a_revision_that_is_not_there(hub: FakeHub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "vicuna.weights", "inspect", "owner/base@nothing")
    assert done.returncode == 1 and "owner/base on the hub has no revision nothing" in done.stderr


def test_without_the_hub_the_cache_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    flags = ("vicuna.weights", "inspect", "owner/base")
    for settings, why in ((nobody, "the hub cannot be reached (Connect"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")):
        done = run(hub, tmp_path, *flags, **settings)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "owner/base is no folder and is not in the hub's cache, and" in done.stderr and why in done.stderr
    plan = ("--plan", "--model", "owner/base", "--gpu", "a100-80gb:8")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1000, **shape}
    (hub.repositories["owner/base", COMMITS["main"]] / "config.json").write_text(json.dumps(config))
    assert run(hub, tmp_path, "vicuna.train", *plan).returncode == 0  # leaves the small files in the cache
    done = run(hub, tmp_path, *flags, **nobody)
    assert done.returncode == 1 and "owner/base in the hub's cache has no weights, and the hub cannot" in done.stderr
    assert run(hub, tmp_path, *flags).returncode == 0
    done = run(hub, tmp_path, *flags, **nobody)
    assert done.returncode == 0 and "taking owner/base from its cache, commit aaaa" in done.stderr
    done = run(hub, tmp_path, *flags, HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and "warning" not in done.stderr
    shard = next((tmp_path / "cache").rglob("model-00001-of-*.safetensors"))
    shard.unlink()
    done = run(hub, tmp_path, *flags, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and f"in the hub's cache lacks {shard.name}, and HF_HUB_OFFLINE is set" in done.stderr


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["a.safetensors", "pytorch_model.bin", "LICENSE", "x.py", "gguf/x.gguf"], ["LICENSE", "pytorch_model.bin"]),
        (["pytorch_model.bin", "tokenizer.model", "training_args.bin"], ["pytorch_model.bin", "tokenizer.model"]),
        ([INDEX_NAME, *SHARDS, "consolidated.safetensors", "model.safetensors"], [*SHARDS, INDEX_NAME]),
        (["model.safetensors", "consolidated.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]),
        (["vicuna_delta.json", "weights.vdelta", "SHA256SUMS", "files/a.json", "files/deep/b"],
         ["SHA256SUMS", "files/a.json", "vicuna_delta.json", "weights.vdelta"]),
        (["README.md"], []),
        (["consolidated.00.pth", "params.json"], []),
    ],
)  # fmt: skip
def test_only_what_is_needed_is_fetched(names: list[str], needed: list[str]) -> None:
    assert needed_files(names, lambda _: SHARDS) == needed


def test_beside_the_weights() -> None:
    assert needed_files([INDEX_NAME, *SHARDS, "config.json", "modeling.py"]) == ["config.json"]
