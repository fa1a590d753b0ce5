"""The same names of models everywhere: a repository of the hub cleaned for, trained, and served as it was written."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import COMMITS, FakeHub, serving


@pytest.fixture
def hub(tmp_path: Path, bpe_tokenizer: Any) -> Iterator[FakeHub]:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "repositories" / "tiny"
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(bpe_tokenizer), **shape)).save_pretrained(folder)
    bpe_tokenizer.save_pretrained(folder)
    with serving({("owner/tiny", COMMITS["main"]): folder}) as server:
        yield server


def run(hub: FakeHub, cache: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        env={**os.environ, **hub.environment(cache)},
        capture_output=True,
        text=True,
    )


def test_cleaned_for_a_repository(hub: FakeHub, tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "I am well, thank you."}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "conversations": talk}) + "\n")
    flags = ("--tokenizer", "owner/tiny", "--template", "chatml", "--max-tokens", 512)
    done = run(hub, tmp_path / "cache", "vicuna.data", tmp_path / "in.jsonl", "--output-dir", tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    [record] = map(json.loads, (tmp_path / "out" / "records.jsonl").read_text().splitlines())
    assert record["num_tokens"] > 10
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"]["tokenizer"] == f"owner/tiny@{COMMITS['main']}"
    assert not hub.has_sent_weights()
    done = run(hub, tmp_path / "cache", "vicuna.data", "stats", tmp_path / "out", *flags[:4], "--json")
    assert done.returncode == 0, done.stderr
    done = run(hub, tmp_path / "cache", "vicuna.template", "show", "chatml", *flags[:2])
    assert done.returncode == 0 and "<|im_start|>" in done.stdout, done.stderr


def test_served_under_the_name_that_was_written(hub: FakeHub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vicuna.serve", "--model", "owner/tiny@main", "--template", "chatml"]
    environment = {**os.environ, **hub.environment(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [*command, "--port", "0", "--no-web", "--num-threads", "1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as served,
    ):
        assert served.stdout is not None
        announced = next(served.stdout, "")  # the first line comes when all is ready
        served.terminate()
    assert announced.startswith("model owner/tiny@main: pid "), (tmp_path / "log").read_text()
    assert "".join(hub.asked).count("model.safetensors") > 0
