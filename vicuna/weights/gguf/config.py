"""A model's configuration in both worlds: `config.json` and the metadata of the architecture.

What cannot be said in GGUF, or would be computed otherwise there, is refused or warned about rather than left out:
a model whose rope is scaled in a way that llama.cpp does not know would answer well for a page and then fall apart.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.errors import VicunaError
from vicuna.io.log import warning
from vicuna.weights.gguf.container import Value, float32, string, uint32
from vicuna.weights.gguf.names import Architecture, architecture_of_model_type

# Keys of our own, which llama.cpp passes over, for what the way back could not tell otherwise.
MODEL_TYPE_KEY = "vicuna.model_type"  # llama and mistral are one architecture in GGUF
ROPE_KEY = "vicuna.rope_scaling"  # Llama 3's scaling is only a tensor there, yarn's attention factor another number
MAX_LAYERS = 10_000
LARGEST_FLOAT32 = 3.4e38


@dataclass(frozen=True)
class HubConfig:
    """What of a `config.json` the tensors and the metadata depend on."""

    model_type: str
    architecture: Architecture
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    rope: dict[str, Any]
    is_tied: bool


def read_config(config: Any, where: str) -> HubConfig:
    """The configuration, checked.

    Raises:
        VicunaError: the model is of another family, or something is missing, of the wrong type or does not fit.
    """
    if not isinstance(config, dict):
        raise VicunaError(f"{where} holds no JSON object; copy it from the model again")
    architecture = architecture_of_model_type(config.get("model_type"), where)
    if config.get("quantization_config"):
        raise VicunaError(f"{where}: the model is quantized already; export the model it was made from")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise VicunaError(f"{where}: hidden_act {config['hidden_act']!r} is not what llama.cpp computes (silu)")

    def size(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value < 2**31:
            raise VicunaError(f"{where}: {key} is {value!r}; it takes a whole number from 1")
        return value

    def number(key: str, place: dict[str, Any], default: float) -> float:
        value = place.get(key, default)
        if not is_positive(value):
            raise VicunaError(f"{where}: {key} is {value!r}; it takes a number above 0")
        return float(value)

    hidden_size, num_heads = size("hidden_size"), size("num_attention_heads")
    rope = _rope(config, where)
    found = HubConfig(
        model_type=config["model_type"],
        architecture=architecture,
        vocab_size=size("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=size("intermediate_size"),
        num_layers=size("num_hidden_layers"),
        num_heads=num_heads,
        num_key_value_heads=size("num_key_value_heads", num_heads),
        head_dim=size("head_dim", 128 if architecture.has_qk_norm else max(1, hidden_size // num_heads)),
        context_length=size("max_position_embeddings", 2048),
        rms_norm_eps=number("rms_norm_eps", config, 1e-6),
        rope_theta=number("rope_theta", rope, 10000.0),
        rope=rope,
        is_tied=config.get("tie_word_embeddings", False) is True,
    )
    if found.num_heads % found.num_key_value_heads or found.head_dim % 2 or found.num_layers > MAX_LAYERS:
        raise VicunaError(
            f"{where}: {found.num_layers} layers, {found.num_heads} heads of {found.head_dim} over "
            f"{found.num_key_value_heads} key-value heads do not go together; correct the configuration"
        )
    _warn_about_windows(config, found, where)
    return found


def _rope(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The rope's parameters, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise VicunaError(f"{where}: rope_parameters and rope_scaling take a table; correct the configuration")
    by_layer = [key for key, value in new.items() if isinstance(value, dict)]
    part = new.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if by_layer or part not in (None, 1):
        what = f"differ by layer ({', '.join(by_layer)})" if by_layer else f"turn only {part} of each head"
        raise VicunaError(
            f"{where}: its rotary embeddings {what}, which cannot be said in a GGUF file of this architecture"
        )
    rope = {**({"rope_theta": config["rope_theta"]} if config.get("rope_theta") else {}), **old, **new}
    rope["rope_type"] = rope.get("rope_type", rope.pop("type", None)) or "default"
    if rope["rope_type"] not in ROPE_WRITERS:
        raise VicunaError(
            f"{where}: rope scaling {rope['rope_type']!r} cannot be said in a GGUF file of this architecture "
            f"(what can: {', '.join(ROPE_WRITERS)})"
        )
    for key in (*NEEDED[rope["rope_type"]], *(key for key in OPTIONAL if rope.get(key) is not None)):
        if not is_positive(value := rope.get(key)):
            raise VicunaError(f"{where}: the rope scaling's {key} is {value!r}; it takes a number above 0")
    if rope.get("truncate") is False:
        raise VicunaError(f"{where}: the rope scaling says truncate: false, which llama.cpp does not know")
    return rope


NEEDED = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


OPTIONAL = (
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
)


def is_positive(value: Any) -> bool:
    """Is it a number above 0 that a float32 can hold?"""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < LARGEST_FLOAT32


def _warn_about_windows(config: dict[str, Any], found: HubConfig, where: str) -> None:
    window = config.get("sliding_window")
    uses_it = config.get("use_sliding_window", found.model_type == "mistral")
    if uses_it and isinstance(window, int) and window < found.context_length:
        warning(
            f"{where}: the model sees the last {window} tokens only; llama.cpp lets it see all "
            f"{found.context_length}, so what comes after token {window} differs"
        )


def config_metadata(config: HubConfig) -> dict[str, Value]:
    """The architecture's metadata."""
    prefix = config.architecture.name
    metadata = {
        "vocab_size": uint32(config.vocab_size),
        "context_length": uint32(config.context_length),
        "embedding_length": uint32(config.hidden_size),
        "block_count": uint32(config.num_layers),
        "feed_forward_length": uint32(config.intermediate_size),
        "attention.head_count": uint32(config.num_heads),
        "attention.head_count_kv": uint32(config.num_key_value_heads),
        "attention.key_length": uint32(config.head_dim),
        "attention.value_length": uint32(config.head_dim),
        "attention.layer_norm_rms_epsilon": float32(config.rms_norm_eps),
        "rope.dimension_count": uint32(config.head_dim),
        "rope.freq_base": float32(config.rope_theta),
        **ROPE_WRITERS[config.rope["rope_type"]](config),
    }
    return {
        **{f"{prefix}.{key}": value for key, value in metadata.items()},
        MODEL_TYPE_KEY: string(config.model_type),
        **({} if config.rope["rope_type"] == "default" else {ROPE_KEY: string(_scaling(config.rope))}),
    }


def _scaling(rope: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in rope.items() if key != "rope_theta"}, sort_keys=True)


def _no_scaling(_: HubConfig) -> dict[str, Value]:
    return {}


def _linear(config: HubConfig) -> dict[str, Value]:
    return {"rope.scaling.type": string("linear"), "rope.scaling.factor": float32(config.rope["factor"])}


def _yarn(config: HubConfig) -> dict[str, Value]:
    rope, factor = config.rope, float(config.rope["factor"])
    original = rope.get("original_max_position_embeddings") or config.context_length
    metadata = {
        "rope.scaling.type": string("yarn"),
        "rope.scaling.factor": float32(factor),
        "rope.scaling.original_context_length": uint32(int(original)),
        "rope.scaling.yarn_beta_fast": float32(rope.get("beta_fast") or 32.0),
        "rope.scaling.yarn_beta_slow": float32(rope.get("beta_slow") or 1.0),
    }
    attention_factor = rope.get("attention_factor")
    if attention_factor is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        attention_factor = _mscale(factor, rope["mscale"]) / _mscale(factor, rope["mscale_all_dim"])
    if (
        attention_factor is not None
    ):  # llama.cpp multiplies its own 0.1 ln(factor) + 1 by it; Hugging Face replaces that
        metadata["rope.scaling.attn_factor"] = float32(attention_factor / _mscale(factor, 1.0))
    return metadata


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


ROPE_WRITERS: dict[str, Callable[[HubConfig], dict[str, Value]]] = {
    "default": _no_scaling,
    "linear": _linear,
    "yarn": _yarn,
    "llama3": _no_scaling,  # says it with a tensor: rope_factors
}


def rope_factors(config: HubConfig) -> NDArray[np.float32] | None:
    """The tensor by whose numbers llama.cpp divides the rope's frequencies: (D/2,); None unless scaled as Llama 3.1 is.

    Source: transformers modeling_rope_utils.py, `_compute_llama3_parameters`.
    """
    rope = config.rope
    if rope["rope_type"] != "llama3":
        return None
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    wavelengths = 2 * np.pi * np.float32(config.rope_theta) ** pairs
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wavelengths - low) / (high - low) if high != low else np.zeros_like(wavelengths)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1.0, np.where(wavelengths > original / low, factor, between))
    return factors.astype(np.float32)


def shortest_float(value: float) -> float:
    """The shortest decimal that is this float32: GGUF stores 1e-05 as 9.999999747378752e-06."""
    return float(str(np.float32(value)))
