"""A LLaMA-family model for serving, in plain torch: reads a Hugging Face directory, keeps a key-value cache, steps.

Before: `native.py` decides which tokens of which requests make up the next step. Here: one forward pass over them.
After: `sampler.py` chooses a token from each row of logits.

Tokens of all requests lie flat, one after another, so every projection is one matrix product per step whatever mix of
decoding and prefilling requests there is. Only attention is computed for each request alone.

Letters: T tokens in the step, N rows of logits, D decoding requests, L longest cached length among them,
S slots (rows of the cache), C positions in a slot, H query heads, K key-value heads, G = H / K, E size of a head,
F hidden size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from vicuna.errors import VicunaError
from vicuna.serve.engines.llama_config import LlamaConfig, read_config
from vicuna.weights.files.checkpoint import CheckpointReader, require_safetensors


def rotary_table(config: LlamaConfig, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary embedding, (C, E) in float32.

    Source: Su et al., arXiv 2104.09864; the llama3 scaling is that of Llama 3.1's reference code as kept in
    transformers `modeling_rope_utils.py`.
    """
    rope, size = config.rope, config.head_size
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    if rope["rope_type"] == "linear":
        frequencies = frequencies / rope["factor"]
    elif rope["rope_type"] == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        rotations = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        keep = ((rotations - low) / (high - low)).clamp(0, 1)
        frequencies = keep * frequencies + (1 - keep) * frequencies / rope["factor"]
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    angles = torch.cat([angles, angles], dim=-1)  # (C, E)
    return angles.cos(), angles.sin()


def can_prepack() -> bool:
    """Whether this torch has oneDNN's private pre-packed bf16 linear and it computes what `F.linear` does.

    Measured 1.3-1.9 times faster than `F.linear` for 1-32 rows on a CPU with avx512_bf16. The operations are private,
    so they are tried first.
    """
    try:
        weight, rows = torch.randn(32, 64).bfloat16(), torch.randn(3, 64).bfloat16()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
        result = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
        return bool(torch.allclose(result.float(), F.linear(rows, weight).float(), atol=0.1, rtol=0.02))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


Linear = Callable[[torch.Tensor], torch.Tensor]
PROJECTIONS = {
    **{name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")},
    **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, prepack: bool) -> Linear:
    """A function x -> x W^T + b, with the weight in oneDNN's packed layout if `prepack`."""
    if not prepack:
        weight = weight.contiguous()
        return lambda rows: F.linear(rows, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)  # 8: rows to optimize for
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda rows: linear(rows, packed, bias, "none", [], "")


@dataclass(frozen=True)
class Layer:
    """One block, its projections fused: q, k, v in one product, gate and up in another."""

    input_norm: torch.Tensor
    qkv: Linear
    output: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class PrefillChunk:
    """Prompt tokens of one slot that one step reads: positions `start` to `start + length`."""

    slot: int
    start: int
    length: int


@dataclass(frozen=True)
class Batch:
    """The tokens of one step: first one for each decoding slot 0..D-1, then the prefill chunks.

    Attributes:
        input_ids, slots, positions: (T,) each: the tokens, and where in the cache their keys and values go.
        num_decoding: D.
        chunks: the slots and positions of the tokens from D on.
        logit_indices: (N,) indices of the tokens after which a token is chosen.
    """

    input_ids: list[int]
    slots: list[int]
    positions: list[int]
    num_decoding: int
    chunks: list[PrefillChunk]
    logit_indices: list[int]


class Llama:
    """The model and its key-value cache of `num_slots` slots with `context_size` positions each."""

    def __init__(
        self, directory: Path, *, num_slots: int, context_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.config = config = read_config(directory)
        self.device, self.dtype, self.context_size = device, dtype, context_size
        self.is_prepacked = device.type == "cpu" and dtype == torch.bfloat16 and can_prepack()
        weights = _Weights(directory, dtype, device)
        embedding_shape = (config.vocab_size, config.hidden_size)
        self.embedding = weights.take("model.embed_tokens.weight", embedding_shape)
        self.layers = [self._layer(weights, f"model.layers.{index}.") for index in range(config.num_layers)]
        self.norm = weights.take("model.norm.weight", (config.hidden_size,))
        tied = config.is_tied or not weights.has("lm_head.weight")
        head = self.embedding if tied else weights.take("lm_head.weight", embedding_shape)
        self.head = make_linear(head, None, self.is_prepacked)
        weights.finish()
        cos, sin = rotary_table(config, context_size)
        self.cos, self.sin = cos.to(device, dtype), sin.to(device, dtype)  # (C, E)
        shape = (config.num_layers, num_slots, context_size, config.num_key_value_heads, config.head_size)
        self.keys, self.values = (_zeros(shape, dtype, device) for _ in range(2))

    def _layer(self, weights: "_Weights", prefix: str) -> Layer:
        config = self.config
        hidden, query = config.hidden_size, config.num_heads * config.head_size
        key_value, inner = config.num_key_value_heads * config.head_size, config.intermediate_size

        def linear(inputs: int, **outputs: int) -> Linear:
            """Projections of a block, by their names and sizes, fused into one product."""
            names = {prefix + PROJECTIONS[name]: size for name, size in outputs.items()}
            matrices = [weights.take(f"{name}.weight", (size, inputs)) for name, size in names.items()]
            biases = [
                weights.take(f"{name}.bias", (size,)) for name, size in names.items() if weights.has(f"{name}.bias")
            ]
            return make_linear(torch.cat(matrices), torch.cat(biases) if biases else None, self.is_prepacked)

        return Layer(
            input_norm=weights.take(prefix + "input_layernorm.weight", (hidden,)),
            qkv=linear(hidden, q=query, k=key_value, v=key_value),
            output=linear(query, o=hidden),
            post_norm=weights.take(prefix + "post_attention_layernorm.weight", (hidden,)),
            gate_up=linear(hidden, gate=inner, up=inner),
            down=linear(inner, down=hidden),
        )

    @torch.inference_mode()
    def forward(self, batch: Batch) -> torch.Tensor:
        """Run the batch, extend the cache, return the logits at `logit_indices`: (N, V) in float32."""
        config = self.config
        heads, kv_heads, size = config.num_heads, config.num_key_value_heads, config.head_size
        slots, positions = self._tensor(batch.slots), self._tensor(batch.positions)
        places = slots * self.context_size + positions  # (T,) rows of the flattened cache
        cos, sin = self.cos[positions, None], self.sin[positions, None]  # (T, 1, E)
        lengths = positions[: batch.num_decoding] + 1
        longest = 1 + max(batch.positions[: batch.num_decoding], default=0)
        mask = torch.zeros(batch.num_decoding, longest, dtype=self.dtype, device=self.device)  # (D, L)
        mask.masked_fill_(torch.arange(longest, device=self.device) >= lengths[:, None], -torch.inf)
        mask = mask[:, None, None]

        hidden = F.embedding(self._tensor(batch.input_ids), self.embedding)  # (T, F)
        for index, layer in enumerate(self.layers):
            normed = F.rms_norm(hidden, (config.hidden_size,), layer.input_norm, config.rms_norm_eps)
            qkv = layer.qkv(normed).view(-1, heads + 2 * kv_heads, size)  # (T, H + 2K, E)
            rotated = _rotate(qkv[:, : heads + kv_heads], cos, sin)
            keys, values = self.keys[index], self.values[index]  # (S, C, K, E)
            keys.view(-1, kv_heads, size).index_copy_(0, places, rotated[:, heads:])
            values.view(-1, kv_heads, size).index_copy_(0, places, qkv[:, heads + kv_heads :])
            attended = self._attend(batch, rotated[:, :heads], keys, values, mask, longest)
            hidden = hidden + layer.output(attended)
            normed = F.rms_norm(hidden, (config.hidden_size,), layer.post_norm, config.rms_norm_eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        hidden = hidden[self._tensor(batch.logit_indices)]  # (N, F): only the last token of a prompt needs logits
        hidden = F.rms_norm(hidden, (config.hidden_size,), self.norm, config.rms_norm_eps)
        logits: torch.Tensor = self.head(hidden).float()
        return logits

    def _attend(
        self,
        batch: Batch,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        """Causal attention of each token over its own slot of the cache. (T, H, E) -> (T, H * E)"""
        count, kv_heads, size = batch.num_decoding, self.config.num_key_value_heads, self.config.head_size
        parts = []
        if count:
            # The G query heads that share a key head take the sequence dimension: the keys need not be repeated.
            grouped = query[:count].view(count, kv_heads, -1, size)  # (D, K, G, E)
            past_keys, past_values = (
                cache[:count, :longest].transpose(1, 2) for cache in (keys, values)
            )  # (D, K, L, E)
            parts.append(
                F.scaled_dot_product_attention(grouped, past_keys, past_values, attn_mask=mask).reshape(count, -1)
            )
        offset = count
        for chunk in batch.chunks:
            end = chunk.start + chunk.length
            part = query[offset : offset + chunk.length].transpose(0, 1)[None]  # (1, H, length, E)
            past_keys, past_values = (
                cache[chunk.slot, :end].transpose(0, 1)[None] for cache in (keys, values)
            )  # (1, K, end, E)
            allowed = None
            if chunk.start:
                last = torch.arange(chunk.start, end, device=self.device)[:, None]
                allowed = torch.arange(end, device=self.device) <= last  # (length, end)
            result = F.scaled_dot_product_attention(
                part, past_keys, past_values, attn_mask=allowed, is_causal=chunk.start == 0, enable_gqa=True
            )
            parts.append(result[0].transpose(0, 1).reshape(chunk.length, -1))
            offset += chunk.length
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot over another."""
        for cache in (self.keys, self.values):
            cache[:, target, :length] = cache[:, source, :length]

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty cache. It must be zeroed: a masked position has weight 0, and 0 times NaN is NaN.

    On a CPU, pages that no token has touched cost no memory: numpy asks the system for zeros, torch would write them.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size, alignment = math.prod(shape) * dtype.itemsize, 64
    memory = torch.from_numpy(np.zeros(size + alignment, np.uint8))
    start = -memory.data_ptr() % alignment
    return memory[start : start + size].view(dtype).view(shape)


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


class _Weights:
    """The tensors of a checkpoint, each taken once; one that was not taken is an error."""

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.directory, self.dtype, self.device = directory, dtype, device
        self.tensors: dict[str, torch.Tensor] = {}
        for path in weight_files(directory):
            try:
                with safe_open(path, framework="pt") as file:
                    self.tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            except SafetensorError as error:
                raise VicunaError(f"{path} is not a whole safetensors file ({error}); copy it again") from None

    def has(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = self.tensors.pop(name, None)
        if tensor is None:
            raise VicunaError(f"{self.directory}: the checkpoint has no tensor '{name}'; fetch it again")
        if tensor.shape != shape:
            raise VicunaError(
                f"{self.directory}: {name} is {list(tensor.shape)}, its config.json wants {list(shape)}; fetch it again"
            )
        return tensor.to(self.device, self.dtype)

    def finish(self) -> None:
        left = [name for name in self.tensors if not name.endswith("rotary_emb.inv_freq") and name != "lm_head.weight"]
        if left:
            raise VicunaError(
                f"{self.directory}: tensor '{left[0]}' is not part of a plain LLaMA; this engine would ignore it"
            )


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory.

    Raises:
        VicunaError: there are none, or they are not what their headers and the index say.
    """
    require_safetensors(directory)
    with CheckpointReader(directory) as reader:
        return reader.files
