"""What the tests of training build: small models, records, runs that are stopped, and what a run has written."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.rounding import assert_equal_weights
from vicuna.conversation import get_template
from vicuna.io.jsonl import JsonObject
from vicuna.train import loop
from vicuna.train.batches.token_cache import TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.loop import train
from vicuna.train.model.conversation_model import ConversationModel, load_model, read_config
from vicuna.train.options import TrainOptions
from vicuna.train.ranks import CPU

TEMPLATE = "vicuna_v1.1"
WORDS = ["hello", "world", "import", "path", "return", "name", "file", "you", "how", "are", "self", "os", "value"]
SYSTEM = "You are the one assistant of this whole test, and you say what is asked of you."
OTHER = "Here another assistant speaks, who has been told quite other things about it."
WIDE_SHAPE = {"hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 8}
LORA_RANK = 4

MakeOptions = Callable[..., TrainOptions]
"""Options for a short run on the tiny model; keyword arguments replace them."""


def save_llama(
    folder: Path, tokenizer: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any
) -> Path:
    """A small random LLaMA with the tokenizer of another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder / file.name)
    vocab_size = len(AutoTokenizer.from_pretrained(tokenizer))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**(shape | {"vocab_size": vocab_size, "num_key_value_heads": 2} | changes))
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.15)  # large enough that documents which leak would show
    model.to(dtype).save_pretrained(folder)
    return folder


def save_qwen(folder: Path, tokenizer: Path) -> Path:
    """A Qwen2 with a tied head, biases, and weights in several files."""
    for file in tokenizer.iterdir():
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder / file.name)
    config = Qwen2Config(
        vocab_size=1500,
        hidden_size=32,
        intermediate_size=50,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def small_config(**changes: Any) -> PretrainedConfig:
    """A LLaMA whose eight layers weigh more than anything else in its step."""
    return LlamaConfig(
        **({"vocab_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 2} | WIDE_SHAPE | changes)
    )


def load(path: Path) -> ConversationModel:
    """The model in a folder, on the CPU."""
    return load_model(path, read_config(path), CPU)


def make_records(count: int, *, seed: int = 0) -> list[JsonObject]:
    """Conversations of one to three rounds of random words."""
    generator = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    def text() -> str:
        return " ".join(WORDS[number(len(WORDS))] for _ in range(2 + number(10)))

    return [
        {
            "id": f"record-{index}",
            "messages": [
                {"role": role, "content": text()} for _ in range(1 + number(3)) for role in ("user", "assistant")
            ],
        }
        for index in range(count)
    ]


def make_record(*contents: str, **extra: Any) -> JsonObject:
    """A record with these messages, of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return {"id": "the-record", "messages": messages, **extra}


def write_records(path: Path, records: list[JsonObject]) -> Path:
    """Records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def tokenized(path: Path, model: Path, template: str = TEMPLATE, max_length: int = 2048) -> TokenizedConversations:
    """The examples of a file, with the tokenizer of a model."""
    return tokenize_files([path], get_template(template), AutoTokenizer.from_pretrained(model), max_length=max_length)


def stop_at_step(options: TrainOptions, at_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, with SIGTERM in the middle of a step."""
    step = loop.Trainer.step

    def step_and_signal(self: Any) -> Any:
        if self.steps_done + 1 == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "step", step_and_signal)
        result = train(options)
    assert result.stopped_by == signal.SIGTERM
    assert result.model is None


def log_entries(options: TrainOptions, key: str = "step") -> list[JsonObject]:
    """The entries of a run's log that have this key."""
    lines = (options.output_dir / "train_log.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if key in entry]


def losses(options: TrainOptions) -> list[float]:
    """The loss of every logged step of a run."""
    return [entry["loss"] for entry in log_entries(options, "loss")]


def steps_logged(options: TrainOptions, key: str = "loss") -> list[int]:
    """The steps of the log entries that have this key."""
    return [entry["step"] for entry in log_entries(options, key)]


def read_generations(options: TrainOptions) -> list[JsonObject]:
    """What a run has generated."""
    return [json.loads(line) for line in (options.output_dir / "samples.jsonl").read_text().splitlines()]


def weights(options: TrainOptions, dtype: torch.dtype | str = torch.float32) -> dict[str, torch.Tensor]:
    """The exported weights of a run, in fp32, or with "auto" in the dtype that they are stored in."""
    return dict(AutoModelForCausalLM.from_pretrained(options.output_dir / "model", dtype=dtype).named_parameters())


def adapter_of(options: TrainOptions) -> dict[str, torch.Tensor]:
    """The exported adapter of a run."""
    tensors: dict[str, torch.Tensor] = load_file(options.output_dir / "adapter" / "adapter_model.safetensors")
    return tensors


def digest(options: TrainOptions) -> str:
    """The SHA-256 of the exported weights of a run."""
    return hashlib.sha256((options.output_dir / "model/model.safetensors").read_bytes()).hexdigest()


def leftovers(options: TrainOptions) -> list[Path]:
    """Temporary files and folders that a run has left."""
    return [path for path in options.output_dir.rglob(".*") if path.name.endswith((".tmp", ".old"))]


def assert_same_training(one: TrainOptions, other: TrainOptions) -> None:
    """Equal losses and weights, up to rounding."""
    assert losses(one) == pytest.approx(losses(other), abs=1e-4)
    assert_equal_weights(weights(one, "auto"), weights(other, "auto"), rtol=1e-3, atol=1e-4)
