"""GGUF metadata to `config.json` and `generation_config.json`: the inverse of `config_to_gguf`.

Values are checked for type and range before they are used; `from_gguf` compares the tensors' shapes with them.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.weights.files.numbers import TORCH_NAMES, Floats
from vicuna.weights.gguf.config import (
    MODEL_TYPE_KEY,
    ROPE_KEY,
    HubConfig,
    is_positive,
    read_config,
    rope_factors,
    shortest_float,
)
from vicuna.weights.gguf.names import Architecture, architecture_of_gguf

# Llama 3.1's and later ones' settings; files written by other tools have only the factors that result.
KNOWN_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class Metadata:
    """The metadata of a GGUF file, with a getter for each type that checks the value."""

    path: Path
    values: JsonObject

    @property
    def architecture(self) -> Architecture:
        return architecture_of_gguf(self.values.get("general.architecture"), str(self.path))

    def own(self, key: str) -> str:
        """The full name of a key of the architecture: `llama.block_count`."""
        return f"{self.architecture.name}.{key}"

    def size(self, key: str, default: int | None = None) -> int:
        """A size, a count or an id.

        Raises:
            VicunaError: it is missing without a default, or no whole number from 0.
        """
        value = self.values.get(key, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise VicunaError(f"{self.path} says {key} is {value!r}; fetch a complete GGUF file")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0.

        Raises:
            VicunaError: it is missing without a default, or no such number.
        """
        value = self.values.get(key, default)
        if value is None or not is_positive(value):
            raise VicunaError(f"{self.path} says {key} is {value!r}; fetch a complete GGUF file")
        return shortest_float(value)

    def text(self, key: str) -> str | None:
        """A text, or None."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def list_of(self, key: str, kind: type) -> list[Any]:
        """A list of texts or numbers.

        Raises:
            VicunaError: it is missing, or something else.
        """
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
            raise VicunaError(f"{self.path} has no usable {key}; fetch a complete GGUF file")
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean; None where it is missing."""
        value = self.values.get(key)
        return value if isinstance(value, bool) else None


def special_token_ids(metadata: Metadata, num_tokens: int) -> JsonObject:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`, where the file has them and they are in the vocabulary."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    keys = {name: f"tokenizer.ggml.{key}_token_id" for name, key in names.items()}
    ids = {f"{name}_token_id": metadata.size(key) for name, key in keys.items() if key in metadata.values}
    return {name: index for name, index in ids.items() if index < num_tokens}


def generation_config(metadata: Metadata, num_tokens: int) -> JsonObject:
    """`generation_config.json`: the special tokens, among them every token that ends a reply; no sampling settings."""
    ids = special_token_ids(metadata, num_tokens)
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    ends = [metadata.size(key) for key in keys if key in metadata.values]
    ends = [index for index in dict.fromkeys(ends) if index < num_tokens]
    return {**ids, "eos_token_id": ends} if len(ends) > 1 else ids


def build_config(
    metadata: Metadata, names: set[str], num_tokens: int, dtype: str, factors: Floats | None
) -> JsonObject:
    """`config.json` of the model.

    Args:
        names: the file's tensors.
        num_tokens: size of the vocabulary.
        dtype: dtype of the weights that will be written.
        factors: the file's rope factors tensor.

    Raises:
        VicunaError: the file lacks something, contradicts itself or scales its rope in a way that is not known.
    """
    architecture, own = metadata.architecture, metadata.own
    hidden_size, num_heads = metadata.size(own("embedding_length")), metadata.size(own("attention.head_count"))
    model_type = metadata.text(MODEL_TYPE_KEY)
    index = architecture.model_types.index(model_type) if model_type in architecture.model_types else 0
    config = {
        "architectures": [architecture.class_names[index]],
        "model_type": architecture.model_types[index],
        "vocab_size": num_tokens,
        "hidden_size": hidden_size,
        "intermediate_size": metadata.size(own("feed_forward_length")),
        "num_hidden_layers": metadata.size(own("block_count")),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.size(own("attention.head_count_kv"), num_heads),
        "head_dim": metadata.size(own("attention.key_length"), hidden_size // max(num_heads, 1)),
        "max_position_embeddings": metadata.size(own("context_length")),
        "rope_theta": metadata.number(own("rope.freq_base"), 10000.0),
        "rms_norm_eps": metadata.number(own("attention.layer_norm_rms_epsilon")),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in names,
        "torch_dtype": TORCH_NAMES[dtype],
        **special_token_ids(metadata, num_tokens),
    }
    if config["model_type"] in ("llama", "qwen3"):
        config["attention_bias"] = "blk.0.attn_output.bias" in names
    if config["model_type"] == "llama":
        config["mlp_bias"] = "blk.0.ffn_down.bias" in names
    if config["model_type"] == "mistral":
        config["sliding_window"] = None
    if rope := _rope(metadata, config, factors):
        config["rope_scaling"] = rope
    read = read_config(config, str(metadata.path))
    _check_heads(metadata, read)
    return config


def _check_heads(metadata: Metadata, config: HubConfig) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        if metadata.size(metadata.own(key), config.head_dim) != config.head_dim:
            raise VicunaError(
                f"{metadata.path}: {metadata.own(key)} is not the head size {config.head_dim}, as it is here"
            )
    if metadata.size("split.count", 1) > 1:
        raise VicunaError(
            f"{metadata.path} is one of several parts of a model; join them first (llama-gguf-split --merge)"
        )
    if metadata.size(metadata.own("expert_count"), 0):
        raise VicunaError(f"{metadata.path} is a mixture of experts; only plain models are converted")


def _rope(metadata: Metadata, config: JsonObject, factors: Floats | None) -> JsonObject | None:
    """`rope_scaling`; None where the rope is not scaled."""
    if text := metadata.text(ROPE_KEY):
        try:
            scaling = json.loads(text)
        except (ValueError, RecursionError):
            scaling = None
        if isinstance(scaling, dict):
            _compare_factors(metadata, config, scaling, factors)
            return scaling
    own = metadata.own
    kind = metadata.text(own("rope.scaling.type")) or "none"
    if factors is not None:
        if kind != "none":
            raise VicunaError(f"{metadata.path} scales its rope twice, by factors and {kind}; nothing here does that")
        scaling = {"rope_type": "llama3", "factor": shortest_float(float(factors.max())), **KNOWN_LLAMA3}
        _compare_factors(metadata, config, scaling, factors)
        return scaling
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": metadata.number(own("rope.scaling.factor"))}
    if kind != "yarn":
        raise VicunaError(
            f"{metadata.path}: rope scaling {kind!r} is not converted; known: linear, yarn, llama3's factors"
        )
    factor = metadata.number(own("rope.scaling.factor"))
    rope = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.size(own("rope.scaling.original_context_length")),
        "beta_fast": metadata.number(own("rope.scaling.yarn_beta_fast"), 32.0),
        "beta_slow": metadata.number(own("rope.scaling.yarn_beta_slow"), 1.0),
    }
    if own("rope.scaling.attn_factor") in metadata.values:
        theirs = metadata.number(own("rope.scaling.attn_factor"))
        rope["attention_factor"] = theirs * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return rope


def _compare_factors(metadata: Metadata, config: JsonObject, rope: JsonObject, factors: Floats | None) -> None:
    expected = rope_factors(read_config({**config, "rope_scaling": rope}, str(metadata.path)))
    if (expected is None) != (factors is None) or (
        expected is not None
        and factors is not None
        and (expected.shape != factors.shape or not np.allclose(expected, factors, rtol=1e-4))
    ):
        raise VicunaError(
            f"{metadata.path} scales its rope by factors that are not Llama 3's ({rope}); they cannot be scaling in a "
            "config.json"
        )
