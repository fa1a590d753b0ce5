"""Random models of the kinds that the native engine serves, and engines that have loaded them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from vicuna.serve.engines.interface import EngineOptions, load_engine
from vicuna.serve.engines.native import NativeEngine

SIZE: dict[str, Any] = {
    "vocab_size": 1503,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # large enough that the logits of a random model differ clearly
}


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


KINDS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "tied, llama3 rope": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZE, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)
    ),
    "biases, linear rope": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SIZE,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
        )
    ),
    "mistral": lambda: AutoModelForCausalLM.from_config(MistralConfig(**SIZE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE)),
}


def load(folder: Path, **options: Any) -> NativeEngine:
    """An engine in float32 on the CPU, unless told otherwise."""
    values = {"dtype": "float32", "device": "cpu", "num_threads": 1, "max_slots": 6, **options}
    engine = load_engine("native", EngineOptions(str(folder), **values))
    assert isinstance(engine, NativeEngine)
    return engine


def prompt(index: int, length: int | None = None) -> list[int]:
    """A prompt of its own for each index."""
    generator = torch.Generator().manual_seed(index)
    ids: list[int] = torch.randint(3, 1503, (length or 5 + 7 * index,), generator=generator).tolist()
    return ids


def change_config(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model with some values of its config.json changed."""
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target
