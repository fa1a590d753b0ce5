"""Tensor names in Hugging Face models and in GGUF, and the order of the rows of q and k in each.

`TOP_NAMES` and `LAYER_NAMES` are the LLaMA family's; an architecture's own extras are in `Architecture`. llama.cpp's
rotary embedding rotates neighbouring pairs in `llama`, so there the rows of q and k are permuted; in `qwen2` and
`qwen3` it rotates pairs of the two halves, as Hugging Face does everywhere, and the rows stay.

Letters: O output rows, I input columns, N heads, D head size.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vicuna.errors import VicunaError, nearest

Number = TypeVar("Number", bound=np.generic)

TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"  # the tensor that has llama3's rope scaling
GGUF_PATTERN = re.compile(r"(?:blk\.(\d{1,4})\.)?(\w+)\.(weight|bias)")
HF_PATTERN = re.compile(r"(?:model\.layers\.(\d{1,4})\.)?([a-z_.]+)\.(weight|bias)")


@dataclass(frozen=True)
class Architecture:
    """One of the architectures that are converted.

    Attributes:
        name: `general.architecture`, also the prefix of its metadata keys.
        model_types: Hugging Face's `model_type`s that compute the same, the one of imports first.
        class_names: the `architectures` of those.
        is_permuted: whether the rows of q and k are permuted in GGUF.
        has_qkv_bias: whether q, k and v have a bias although config.json does not say so.
        has_qk_norm: whether it has norms of q and k.
    """

    name: str
    model_types: tuple[str, ...]
    class_names: tuple[str, ...]
    is_permuted: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False


ARCHITECTURES = (
    Architecture("llama", ("llama", "mistral"), ("LlamaForCausalLM", "MistralForCausalLM"), is_permuted=True),
    Architecture("qwen2", ("qwen2",), ("Qwen2ForCausalLM",), has_qkv_bias=True),
    Architecture("qwen3", ("qwen3",), ("Qwen3ForCausalLM",), has_qk_norm=True),
)


def architecture_of_model_type(model_type: Any, where: str) -> Architecture:
    """The architecture of a Hugging Face model.

    Raises:
        VicunaError: it is none of the LLaMA family's.
    """
    found = {name: one for one in ARCHITECTURES for name in one.model_types}
    if model_type not in found:
        raise VicunaError(f"{where}: model_type {model_type!r} is not converted; {nearest(str(model_type), found)}")
    return found[model_type]


def architecture_of_gguf(name: Any, where: str) -> Architecture:
    """The architecture that a GGUF file names.

    Raises:
        VicunaError: it is none of the LLaMA family's.
    """
    found = {one.name: one for one in ARCHITECTURES}
    if name not in found:
        raise VicunaError(f"{where} is a {name!r} model, which is not converted; {nearest(str(name), found)}")
    return found[name]


def to_gguf(name: str) -> str | None:
    """`model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`; None for a name that has no equivalent."""
    match = HF_PATTERN.fullmatch(name)
    if match is None:
        return None
    layer, part, kind = match.groups()
    if layer is None:
        return f"{_TOP_TO_GGUF[part]}.{kind}" if part in _TOP_TO_GGUF else None
    return f"blk.{int(layer)}.{_LAYER_TO_GGUF[part]}.{kind}" if part in _LAYER_TO_GGUF else None


def to_hugging_face(name: str) -> str | None:
    """The inverse of `to_gguf`; None for a name that has no equivalent."""
    match = GGUF_PATTERN.fullmatch(name)
    if match is None:
        return None
    layer, part, kind = match.groups()
    if layer is None:
        return f"{TOP_NAMES[part]}.{kind}" if part in TOP_NAMES else None
    return f"model.layers.{int(layer)}.{LAYER_NAMES[part]}.{kind}" if part in LAYER_NAMES else None


_TOP_TO_GGUF = {there: here for here, there in TOP_NAMES.items()}
_LAYER_TO_GGUF = {there: here for here, there in LAYER_NAMES.items()}


def model_order(name: str) -> tuple[int, int, str]:
    """Sort key of GGUF names: in the order in which the model computes, embedding, layers, output."""
    match = GGUF_PATTERN.fullmatch(name)
    assert match is not None, name
    layer, part, _ = match.groups()
    if layer is not None:
        return (1, int(layer), f"{list(LAYER_NAMES).index(part):02d}{name}")
    return (0 if part in ("rope_freqs", "token_embd") else 2, 0, name)


def heads_to_permute(name: str, architecture: Architecture, num_heads: int, num_key_value_heads: int) -> int | None:
    """The number of heads in a GGUF tensor whose rows are permuted; None for other tensors."""
    part = name.split(".")[-2]
    heads = {"attn_q": num_heads, "attn_k": num_key_value_heads}.get(part)
    return heads if architecture.is_permuted else None


def permute(values: NDArray[Number], num_heads: int) -> NDArray[Number]:
    """The rows of some heads of q or k (or their bias) in llama.cpp's order: the two halves interleaved."""
    rows = values.shape[0]  # (O, ...), O = N * D
    halves = values.reshape(num_heads, 2, rows // num_heads // 2, *values.shape[1:])  # (N, 2, D/2, ...)
    return halves.swapaxes(1, 2).reshape(values.shape)


def unpermute(values: NDArray[Number], num_heads: int) -> NDArray[Number]:
    """Undo `permute`."""
    rows = values.shape[0]  # (O, ...), O = N * D
    pairs = values.reshape(num_heads, rows // num_heads // 2, 2, *values.shape[1:])  # (N, D/2, 2, ...)
    return pairs.swapaxes(1, 2).reshape(values.shape)
