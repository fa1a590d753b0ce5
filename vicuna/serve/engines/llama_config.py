"""The config.json of a LLaMA-family model, read and checked.

Read by `llama`, which computes the model, and by `native`, which needs its context size before loading the weights.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError, nearest
from vicuna.io.model_files import check_config, read_model_json, shown

MODEL_TYPES = ("llama", "mistral", "qwen2")
# The numbers that each kind of rotary scaling needs.
ROPE_FACTORS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a model, by its config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    rms_norm_eps: float
    rope: dict[str, Any]
    max_positions: int
    is_tied: bool
    eos_token_ids: tuple[int, ...]


def read_config(directory: Path) -> LlamaConfig:
    """Read and check `config.json`.

    Raises:
        VicunaError: the file is missing or says what cannot be, or the architecture is not one this engine computes.
    """
    if not (directory / "config.json").is_file():
        raise VicunaError(f"{directory} has no config.json; give a Hugging Face model directory")
    table = _Table(directory / "config.json")
    check_config(table.values, str(table.path))
    kind = str(table.get("model_type", ""))
    if kind not in MODEL_TYPES:
        raise VicunaError(
            f"{directory}: model type '{kind}' cannot be served by this engine; {nearest(kind, MODEL_TYPES)}"
        )
    if table.get("hidden_act", "silu") != "silu":
        raise VicunaError(f"{directory}: activation '{table.get('hidden_act')}' is not supported; known: silu")
    if table.get("quantization_config"):
        raise VicunaError(f"{directory}: the weights are quantized; give a float32, float16 or bfloat16 model")
    positions = table.integer("max_position_embeddings", 2048)
    if table.get("sliding_window") and table.get("use_sliding_window", True):
        positions = min(positions, table.integer("sliding_window"))  # inside one window, full attention is the same
    heads, hidden_size = table.integer("num_attention_heads"), table.integer("hidden_size")
    config = LlamaConfig(
        vocab_size=table.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=table.integer("intermediate_size"),
        num_layers=table.integer("num_hidden_layers"),
        num_heads=heads,
        num_key_value_heads=table.integer("num_key_value_heads", heads),
        head_size=table.integer("head_dim", hidden_size // heads),
        rms_norm_eps=table.number("rms_norm_eps", 1e-6),
        rope=_rope_table(table),
        max_positions=positions,
        is_tied=bool(table.get("tie_word_embeddings", False)),
        eos_token_ids=_end_tokens(table),
    )
    if config.num_heads % config.num_key_value_heads or config.head_size % 2:
        raise VicunaError(
            f"{table.path}: {heads} heads of size {config.head_size} over {config.num_key_value_heads} key-value heads "
            "cannot be; fetch it again"
        )
    return config


class _Table:
    """A JSON object of a model directory, whose values are checked as they are read."""

    def __init__(self, path: Path, values: Any = None) -> None:
        self.path = path
        self.values = read_model_json(path) if values is None else values
        if not isinstance(self.values, dict):
            raise VicunaError(f"{path} holds no JSON object where one is needed; fetch it again")

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number above 0; `default` where there is none (or null)."""
        value = default if self.get(key) is None else self.get(key)
        if type(value) is not int or value < 1:
            raise VicunaError(f"{self.path}: {key} is {shown(value)}; it must be a whole number above 0")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0; `default` where there is none (or null)."""
        value = default if self.get(key) is None else self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise VicunaError(f"{self.path}: {key} is {shown(value)}; it must be a number above 0")
        return float(value)


def _end_tokens(table: _Table) -> tuple[int, ...]:
    """The tokens that end a reply: generation_config.json wins over config.json, as it does in transformers."""
    path = table.path.with_name("generation_config.json")
    eos = _Table(path).get("eos_token_id") if path.exists() else None
    path, eos = (table.path, table.get("eos_token_id")) if eos is None else (path, eos)
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    if not all(type(token) is int for token in ids):
        raise VicunaError(f"{path}: eos_token_id is {shown(eos)}; it must be a token id or a list of them")
    return tuple(ids)


def _rope_table(table: _Table) -> dict[str, Any]:
    """The rotary settings under one name: transformers 5 writes `rope_parameters`, earlier ones two keys."""
    rope = _Table(table.path, table.get("rope_parameters") or table.get("rope_scaling") or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ROPE_FACTORS:
        raise VicunaError(f"{table.path.parent}: rope type '{kind}' is not supported; known: {', '.join(ROPE_FACTORS)}")
    theta = rope.number("rope_theta", table.number("rope_theta", 10000.0))
    return {"rope_type": kind, "rope_theta": theta, **{name: rope.number(name) for name in ROPE_FACTORS[kind]}}
