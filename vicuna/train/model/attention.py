"""Attention over packed rows: every token attends to the earlier tokens of its own document, and to no other.

Registered with transformers as `vicuna_varlen` and driven by the document bounds that come with each batch. The bounds
are always given: transformers can also infer them from position ids, but silently does not where a cache or a mask is
passed, and tokens then attend across documents (gradients more than 100% off). On CUDA in bf16 the kernel is
`torch.nn.attention.varlen`, on a CPU it is torch's flash kernel (`blockwise`); elsewhere, and on a CPU with a sliding
window, scaled-dot-product attention runs over one document after the other.

Before: `documents` (the bounds of a batch). After: `conversation_model`, whose layers call this.

Shapes: T tokens of all documents in the batch, S queries (mostly T), H query heads, K key and value heads, D head size,
N documents.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from vicuna.train.batches.documents import Documents
from vicuna.train.model.blockwise import BlockAttention

NAME = "vicuna_varlen"
FLASH_DTYPES = (torch.bfloat16, torch.float16)


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
    query_spans: Sequence[slice] | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    Args:
        query: (1, H, S, D).
        key, value: (1, K, T, D), where K divides H.
        attention_mask: must be None; the bounds take its place.
        sliding_window: the most tokens that a token attends to, itself included (early Mistral, some of Qwen).
        query_spans: the tokens that `query` holds, where these are not all T (only if `can_skip_queries`).

    Returns:
        (1, S, H, D), and None in place of the weights.
    """
    assert attention_mask is None, "the document bounds take the mask's place"
    assert dropout == 0.0
    assert query.shape[0] == 1
    assert key.shape[2] == sum(documents.lengths), "the document bounds do not cover the batch"
    num_queries = key.shape[2] if query_spans is None else sum(span.stop - span.start for span in query_spans)
    assert query.shape[2] == num_queries, "the spans are not those of the queries"
    query, key = query.to(value.dtype), key.to(value.dtype)  # the rotary embedding leaves fp32 under autocast
    if sliding_window and sliding_window >= documents.longest:
        sliding_window = None
    if has_flash(query.device.type, value.dtype):
        output = _flash_attention(query[0], key[0], value[0], documents, scaling, sliding_window)
    elif can_skip_queries(value.device, documents, sliding_window):
        output = BlockAttention.apply(query, key, value, documents.blocks(query_spans), scaling)
    else:
        output = _per_document(query, key, value, documents, scaling, sliding_window)
    return output, None


def has_flash(device_type: str, dtype: torch.dtype) -> bool:
    """Whether torch's variable-length flash kernel takes tensors like these."""
    return device_type == "cuda" and dtype in FLASH_DTYPES


def can_skip_queries(device: torch.device, documents: Documents, sliding_window: int | None) -> bool:
    """Whether attention can be computed for some of the tokens alone."""
    return device.type == "cpu" and not (sliding_window and sliding_window < documents.longest)


def _per_document(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:
    """One document after the other, for any device and number format."""
    outputs = []
    for shared, own in documents.keys:
        length, prefix = own.stop - own.start, shared.stop - shared.start
        keys, values = key[:, :, own], value[:, :, own]
        if prefix:
            keys = torch.cat((key[:, :, shared], keys), dim=2)
            values = torch.cat((value[:, :, shared], values), dim=2)
        masking: dict[str, Any] = {"is_causal": True}
        if prefix or sliding_window:
            mask = torch.ones(length, prefix + length, dtype=torch.bool, device=query.device).tril(prefix)
            masking = {"attn_mask": mask.triu(prefix + 1 - sliding_window) if sliding_window else mask}
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, own], keys, values, **masking, scale=scaling, enable_gqa=True
            ).transpose(1, 2)
        )
    return torch.cat(outputs, dim=1)  # (1, T, H, D)


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
    if documents.key_indices is not None:
        key, value = (tensor.index_select(0, documents.key_indices) for tensor in (key, value))
    output = varlen_attn(
        query,
        key,
        value,
        documents.cu_seqlens,
        documents.cu_seqlens_keys,
        max(documents.lengths),
        documents.longest,
        scale=scaling,
        **_causal_keyword(sliding_window),
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0)


@functools.cache
def _causal_keyword(sliding_window: int | None) -> dict[str, Any]:
    """The keyword by which this torch takes a causal mask: `is_causal` in 2.10, the window in later releases."""
    from torch.nn.attention.varlen import varlen_attn

    if "is_causal" not in inspect.signature(varlen_attn).parameters:
        return {"window_size": (sliding_window - 1 if sliding_window else -1, 0)}
    assert not sliding_window, "this release of torch has no sliding window; torch 2.11 has"
    return {"is_causal": True}


AttentionInterface.register(NAME, varlen_attention)
