"""A LLaMA GGUF file as Hugging Face tensors, config and tokenizer, with numpy and the `gguf` reader only.

Used by `small_model`. What llama.cpp's converter did to the model is undone here: names are mapped back, the rows of
q and k (permuted there for its rotary layout) are put back, blocks are dequantised. The tokenizer is written straight
as `tokenizer.json`, so that no library's guess stands between the file and the token ids.

Letters: O output rows, I input columns, N heads, D head size.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.errors import VicunaError, require

TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER_PATTERN = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of a token such as <|im_start|>

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# How text is cut before the merges. llama.cpp's "smollm" cuts out each digit first, then applies GPT-2's expression
# (llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM). transformers' reading of GGUF files leaves the digits out, which gives
# other ids where white space meets a digit ("\n\n1.").
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
    "gpt-2": BYTE_LEVEL,
}


class LlamaGGUF:
    """A LLaMA-architecture GGUF file.

    Raises:
        VicunaError: the file is not GGUF, or of another architecture; or the `gguf` package is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        gguf = require("gguf", "export")
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OSError) as error:
            raise VicunaError(f"{path} cannot be read as GGUF ({error}); fetch it again") from None
        if (architecture := self.get("general.architecture")) != "llama":
            raise VicunaError(f"{path} is a {architecture!r} model; only 'llama' GGUF files are converted")

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value, or `default`."""
        found = self._reader.fields.get(key)
        return default if found is None else found.contents()

    def _require(self, key: str) -> Any:
        if (value := self.get(key)) is None:
            raise VicunaError(f"{self.path} does not say {key}; fetch a complete GGUF file")
        return value

    def config(self) -> dict[str, Any]:
        """`config.json` of the model, for weights stored as bfloat16."""
        hidden_size = self._require("llama.embedding_length")
        num_heads = self._require("llama.attention.head_count")
        names = {tensor.name for tensor in self._reader.tensors}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(self._require("tokenizer.ggml.tokens")),
            "hidden_size": hidden_size,
            "intermediate_size": self._require("llama.feed_forward_length"),
            "num_hidden_layers": self._require("llama.block_count"),
            "num_attention_heads": num_heads,
            "num_key_value_heads": self.get("llama.attention.head_count_kv", num_heads),
            "head_dim": hidden_size // num_heads,
            "max_position_embeddings": self._require("llama.context_length"),
            "rope_theta": shortest_float(self.get("llama.rope.freq_base", 10000.0)),
            "rms_norm_eps": shortest_float(self._require("llama.attention.layer_norm_rms_epsilon")),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": "output.weight" not in names,
            "torch_dtype": "bfloat16",
            **self._special_token_ids(),
        }

    def generation_config(self) -> dict[str, Any]:
        """`generation_config.json`: the special tokens only, no sampling opinion."""
        return self._special_token_ids()

    def _special_token_ids(self) -> dict[str, int]:
        ids = {
            name: self.get(f"tokenizer.ggml.{key}_token_id")
            for name, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items()
        }
        return {f"{name}_token_id": value for name, value in ids.items() if value is not None}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face tensor names with their shapes, in the order of the file."""
        return {
            self._name(tensor.name): tuple(int(n) for n in reversed(tensor.shape)) for tensor in self._reader.tensors
        }

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Every tensor, dequantised to float32, under its Hugging Face name, in the order of `shapes`."""
        quants = require("gguf.quants", "export")
        num_heads = self._require("llama.attention.head_count")
        num_key_value_heads = self.get("llama.attention.head_count_kv", num_heads)
        for tensor in self._reader.tensors:
            name = self._name(tensor.name)
            values = quants.dequantize(tensor.data, tensor.tensor_type).astype("float32", copy=False)
            if name.endswith("q_proj.weight"):
                values = unpermute(values, num_heads)
            elif name.endswith("k_proj.weight"):
                values = unpermute(values, num_key_value_heads)
            yield name, values

    def _name(self, name: str) -> str:
        if name in TOP_NAMES:
            return TOP_NAMES[name]
        match = LAYER_PATTERN.fullmatch(name)
        if not match or match[2] not in LAYER_NAMES:
            raise VicunaError(
                f"{self.path}: tensor {name!r} has no place in a plain LLaMA model; nothing else converts"
            )
        return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.weight"

    def tokenizer(self) -> dict[str, Any]:
        """`tokenizer.json` (the `tokenizers` library's own format) of a byte-level BPE vocabulary."""
        model, pre = self._require("tokenizer.ggml.model"), self._require("tokenizer.ggml.pre")
        if model != "gpt2" or pre not in PRE_TOKENIZERS:
            raise VicunaError(
                f"{self.path} has tokenizer {model!r}/{pre!r}; known: 'gpt2' with {', '.join(PRE_TOKENIZERS)}"
            )
        tokens = self._require("tokenizer.ggml.tokens")
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        kinds = self._require("tokenizer.ggml.token_type")
        control = [
            (i, token) for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == CONTROL_TOKEN
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token, **flags} for i, token in control],
            "normalizer": None,
            "pre_tokenizer": PRE_TOKENIZERS[pre],
            "post_processor": None,
            "decoder": {**BYTE_LEVEL, "add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: i for i, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in self._require("tokenizer.ggml.merges")],
            },
        }

    def tokenizer_config(self) -> dict[str, Any]:
        """`tokenizer_config.json`. The class is the generic one, so that `tokenizer.json` alone decides the ids."""
        tokens = self._require("tokenizer.ggml.tokens")
        special = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self._require("llama.context_length"),
            "clean_up_tokenization_spaces": False,
        }
        for name, key in special.items():
            if (index := self.get(f"tokenizer.ggml.{key}_token_id")) is not None:
                config[name] = tokens[index]
        if (template := self.get("tokenizer.chat_template")) is not None:
            config["chat_template"] = template
        return config


def unpermute(values: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Undo the row order that llama.cpp's converter gives q and k, whose rotary pairs are neighbours there."""
    rows, columns = values.shape  # (O, I), O = N * D
    pairs = values.reshape(num_heads, rows // num_heads // 2, 2, columns)  # (N, D/2, 2, I)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def shortest_float(value: float) -> float:
    """The shortest decimal that is this float32: GGUF stores 1e-05 as 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def to_bfloat16(values: NDArray[np.float32]) -> bytes:
    """Little-endian bfloat16 bytes, rounded to nearest, ties to even. Values are finite."""
    bits = values.astype("<f4", copy=False).reshape(-1).view("<u4")
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    data: bytes = (rounded >> 16).astype("<u2").tobytes()
    return data
