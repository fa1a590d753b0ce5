"""`config.json` to GGUF metadata: the keys of the architecture, and how its rope is scaled.

Stands on `config`; `config_from_gguf` is the inverse.
"""

import json
import math
from collections.abc import Callable

from vicuna.io.jsonl import JsonObject
from vicuna.weights.gguf.config import MODEL_TYPE_KEY, ROPE_KEY, HubConfig
from vicuna.weights.gguf.container import Value, float32, string, uint32


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


def _scaling(rope: JsonObject) -> str:
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
    if attention_factor is not None:
        # llama.cpp multiplies its own 0.1 ln(factor) + 1 by it; Hugging Face's replaces that
        metadata["rope.scaling.attn_factor"] = float32(attention_factor / _mscale(factor, 1.0))
    return metadata


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


ROPE_WRITERS: dict[str, Callable[[HubConfig], dict[str, Value]]] = {
    "default": _no_scaling,
    "linear": _linear,
    "yarn": _yarn,
    "llama3": _no_scaling,  # a tensor instead: `config.rope_factors`
}
