"""Tables of GPUs (memory, speed, price: `hardware.toml`) and of public models' shapes (`shapes.toml`).

Before: the planner's flags. After: `estimate` (shapes), `report` (all of it), `metrics` (the peak of the GPU in use).
"""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from vicuna.errors import UsageError, nearest

GIB = 1 << 30


@dataclass(frozen=True)
class Price:
    """Dollars for an hour of one GPU.

    Args:
        kind: spot or on demand.
        source: where and when it was read.
    """

    dollars: float
    kind: str
    source: str


@dataclass(frozen=True)
class Gpu:
    """A kind of device.

    Args:
        name: as in `hardware.toml`, or as the driver has it.
        memory_bytes: available to a program.
        peak_flops: dense bfloat16, per second; None where it is not known.
        prices: cheapest first.
    """

    name: str
    memory_bytes: int
    peak_flops: float | None = None
    prices: tuple[Price, ...] = ()


@dataclass(frozen=True)
class PublishedSpeed:
    """A published training speed.

    Args:
        shape: of the model, a name in `shapes.toml`.
        length: tokens of each document.
        tokens_per_second: of one GPU.
        checkpointing: none, selective or full.
    """

    gpu: str
    shape: str
    length: int
    tokens_per_second: float
    checkpointing: str
    source: str


def get_gpu(name: str) -> Gpu:
    """The GPU of that name.

    Raises:
        UsageError: there is none.
    """
    table = _table("hardware.toml")["gpus"]
    if name.lower() not in table:
        raise UsageError(f"--gpu {name}: not a GPU that is known here; {nearest(name.lower(), table)}")
    entry = table[name.lower()]
    prices = [
        Price(price["dollars"], price["kind"], f"{price['source']}, {price['date']}") for price in entry["prices"]
    ]
    return Gpu(
        name.lower(),
        round(entry["memory_gib"] * GIB),
        entry["bf16_tflops"] * 1e12,
        tuple(sorted(prices, key=lambda price: price.dollars)),
    )


def gpu_of_device(device: torch.device) -> Gpu | None:
    """The GPU of this machine, with the memory that its driver reports; None for a CPU."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    for name, entry in _table("hardware.toml")["gpus"].items():
        if any(part in properties.name for part in entry["names"]):
            known = get_gpu(name)
            return Gpu(name, properties.total_memory, known.peak_flops, known.prices)
    return Gpu(properties.name, properties.total_memory)


def get_published_speeds() -> list[PublishedSpeed]:
    """All published speeds."""
    return [PublishedSpeed(**entry) for entry in _table("hardware.toml")["published_speeds"]]


def get_shape(name: str) -> PretrainedConfig:
    """The config of a public model, by its name.

    Raises:
        UsageError: it is not in the list.
    """
    table = _table("shapes.toml")
    key = name.lower().replace(".", "-")
    if key not in table:
        raise UsageError(f"--model-shape {name}: not a model that is known here; {nearest(key, table)}")
    entry = table[key]
    hidden_size, intermediate_size, num_layers, num_heads, vocab_size = entry["sizes"]
    return AutoConfig.for_model(
        entry.get("model_type", "llama"),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=entry.get("key_value_heads", num_heads),
        vocab_size=vocab_size,
        tie_word_embeddings=entry.get("tied", False),
        max_position_embeddings=1 << 20,
    )


@functools.cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))
