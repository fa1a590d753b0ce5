"""Attention over packed rows: every token sees the earlier tokens of its own document, and nothing else.

Registered with transformers as `vicuna_varlen` and driven by the document bounds that come with each batch. The bounds
are always given: transformers can also guess them from position ids, but the guess is silently dropped when a cache or
a mask is passed, and documents then read one another (gradients more than 100% off). On CUDA in bf16 the kernel is
`torch.nn.attention.varlen`; elsewhere causal attention runs over one document after the other.

Before: `dataset` (the bounds of a batch). After: `model`, whose layers call this.

Shapes: T tokens of all documents in the batch, H query heads, K key and value heads, D head size, N documents.
"""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

NAME = "vicuna_varlen"
FLASH_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch begin and end.

    Args:
        lengths: tokens of each document, in order.
        cu_seqlens: (N + 1,) int32 on the model's device: 0, then the running sum of the lengths.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device | str = "cpu") -> "Documents":
        """Bounds from lengths."""
        sums = torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(lengths, sums.to(device))


def varlen_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: Documents,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    Args:
        query: (1, H, T, D).
        key, value: (1, K, T, D), where K divides H.
        attention_mask: must be None; the bounds say everything.
        sliding_window: how many tokens a token sees at most, itself included (Mistral's first models, some of Qwen's).

    Returns:
        (1, T, H, D), and None in place of the weights.
    """
    assert attention_mask is None, "the document bounds say everything"
    assert dropout == 0.0
    assert query.shape[0] == 1
    assert query.shape[2] == sum(documents.lengths), "the document bounds do not cover the batch"
    query, key = query.to(value.dtype), key.to(value.dtype)  # the rotary embedding leaves fp32 under autocast
    if has_flash(query.device.type, value.dtype):
        return _flash_attention(query[0], key[0], value[0], documents, scaling, sliding_window), None
    per_document = zip(*(tensor.split(documents.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [
        F.scaled_dot_product_attention(
            q, k, v, **_causal_or_band(q, sliding_window), scale=scaling, enable_gqa=True
        ).transpose(1, 2)
        for q, k, v in per_document
    ]
    return torch.cat(outputs, dim=1), None  # (1, T, H, D)


def has_flash(device_type: str, dtype: torch.dtype) -> bool:
    """Whether torch's variable-length flash kernel takes tensors like these."""
    return device_type == "cuda" and dtype in FLASH_DTYPES


def _causal_or_band(query: torch.Tensor, sliding_window: int | None) -> dict[str, Any]:
    """What to say of one document's (1, H, T, D): causal, or a band where the document is longer than the window."""
    length = query.shape[2]
    if not sliding_window or length <= sliding_window:
        return {"is_causal": True}
    sees = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return {"attn_mask": sees.tril().triu(1 - sliding_window)}


def _flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scaling: float,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """(H, T, D) and (K, T, D) to (1, T, H, D) with torch's own variable-length flash kernel (bf16 or fp16 only)."""
    from torch.nn.attention.varlen import varlen_attn

    # Grouped heads are repeated rather than left to the kernel: torch 2.11 has no `enable_gqa`.
    group = query.shape[0] // key.shape[0]
    query, key, value = (
        tensor.transpose(0, 1).contiguous()  # (T, H, D)
        for tensor in (query, key.repeat_interleave(group, 0), value.repeat_interleave(group, 0))
    )
    longest = max(documents.lengths)
    output = varlen_attn(
        query,
        key,
        value,
        documents.cu_seqlens,
        documents.cu_seqlens,
        longest,
        longest,
        scale=scaling,
        **_causal_keyword(sliding_window if sliding_window and sliding_window < longest else None),
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0)


@functools.cache
def _causal_keyword(sliding_window: int | None) -> dict[str, Any]:
    """How this torch spells "causal": 2.10 took `is_causal`, later releases take the window."""
    from torch.nn.attention.varlen import varlen_attn

    if "is_causal" not in inspect.signature(varlen_attn).parameters:
        return {"window_size": (sliding_window - 1 if sliding_window else -1, 0)}
    assert not sliding_window, "this release of torch has no sliding window; torch 2.11 has"
    return {"is_causal": True}


AttentionInterface.register(NAME, varlen_attention)
