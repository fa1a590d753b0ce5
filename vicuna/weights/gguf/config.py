"""What of a `config.json` matters for GGUF: the sizes and the rope, checked.

What GGUF cannot express, or llama.cpp would compute differently, is refused or warned about rather than left out: a
model whose rope is scaled in a way that llama.cpp does not have answers well for a page and then fails.
`config_to_gguf` and `config_from_gguf` convert configurations.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import warning
from vicuna.io.model_files import MAX_LAYERS, check_config
from vicuna.weights.files.numbers import Floats
from vicuna.weights.gguf.names import Architecture, architecture_of_model_type

# Metadata keys of our own, which llama.cpp ignores: what an import could not tell from its keys.
MODEL_TYPE_KEY = "vicuna.model_type"  # llama and mistral are one architecture in GGUF
ROPE_KEY = "vicuna.rope_scaling"  # in GGUF Llama 3's scaling is only a tensor, yarn's attention factor another number
LARGEST_FLOAT32 = 3.4e38
# Settings that each type of rope scaling must have, and those that it may have.
NEEDED_OF_ROPE_TYPE = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
OPTIONAL_OF_ROPE = (
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
)


@dataclass(frozen=True)
class HubConfig:
    """The values of a `config.json` on which tensors and metadata depend.

    Attributes:
        rope: the rope's settings, with `rope_type`.
        is_tied: whether the output shares the embedding's tensor.
    """

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
    rope: JsonObject
    is_tied: bool


def read_config(config: Any, where: str) -> HubConfig:
    """The configuration, checked.

    Raises:
        VicunaError: the model is of another family, or something is missing, of the wrong type or does not fit.
    """
    config = check_config(config, where)
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

    def number(key: str, place: JsonObject, default: float) -> float:
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


def _rope(config: JsonObject, where: str) -> JsonObject:
    """The rope's settings, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise VicunaError(f"{where}: rope_parameters and rope_scaling take a table; correct the configuration")
    by_layer = [key for key, value in new.items() if isinstance(value, dict)]
    part = new.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if by_layer or part not in (None, 1):
        what = f"differ by layer ({', '.join(by_layer)})" if by_layer else f"rotate only {part} of each head"
        raise VicunaError(
            f"{where}: its rotary embeddings {what}, which cannot be said in a GGUF file of this architecture"
        )
    rope = {**({"rope_theta": config["rope_theta"]} if config.get("rope_theta") else {}), **old, **new}
    rope["rope_type"] = rope.get("rope_type", rope.pop("type", None)) or "default"
    if rope["rope_type"] not in NEEDED_OF_ROPE_TYPE:
        raise VicunaError(
            f"{where}: rope scaling {rope['rope_type']!r} cannot be said in a GGUF file of this architecture "
            f"(what can: {', '.join(NEEDED_OF_ROPE_TYPE)})"
        )
    for key in (
        *NEEDED_OF_ROPE_TYPE[rope["rope_type"]],
        *(key for key in OPTIONAL_OF_ROPE if rope.get(key) is not None),
    ):
        if not is_positive(value := rope.get(key)):
            raise VicunaError(f"{where}: the rope scaling's {key} is {value!r}; it takes a number above 0")
    if rope.get("truncate") is False:
        raise VicunaError(f"{where}: the rope scaling says truncate: false, which llama.cpp does not know")
    return rope


def is_positive(value: Any) -> bool:
    """Is it a number above 0 that a float32 can hold?"""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < LARGEST_FLOAT32


def _warn_about_windows(config: JsonObject, found: HubConfig, where: str) -> None:
    window = config.get("sliding_window")
    uses_it = config.get("use_sliding_window", found.model_type == "mistral")
    if uses_it and isinstance(window, int) and window < found.context_length:
        warning(
            f"{where}: the model sees the last {window} tokens only; llama.cpp lets it see all "
            f"{found.context_length}, so what comes after token {window} differs"
        )


def rope_factors(config: HubConfig) -> Floats | None:
    """The numbers by which llama.cpp divides the rope's frequencies: (D/2,); None unless it is scaled as Llama 3.1's.

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
