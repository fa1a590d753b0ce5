"""Attention of packed documents with one dense mask: what every kernel must equal."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from vicuna.train.batches.documents import Documents
from vicuna.train.model.attention import varlen_attention

LENGTHS = (5, 1, 7, 3)
SHARED = ((0, 0, 0, 0), (0, 3, 3, 0), (0, 4, 0, 2))
"""Tokens of each document's shared prefix."""
SCALING = 0.3


def inputs(
    dtype: torch.dtype, device: str = "cpu", lengths: Sequence[int] = LENGTHS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (1, 6, T, 16), keys and values (1, 2, T, 16)."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(lengths), 16, generator=generator) for heads in (6, 2, 2))
    return query.to(device, dtype), key.to(device, dtype), value.to(device, dtype)


def dense_mask(lengths: Sequence[int], shared: Sequence[int]) -> torch.Tensor:
    """(T, T): True where a query (row) attends to a key (column), written without `Documents`."""
    mask = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    start = first = 0
    for length, prefix in zip(lengths, shared, strict=True):
        first = start if prefix == 0 else first
        for token in range(start, start + length):
            mask[token, first : first + prefix] = True
            mask[token, start : token + 1] = True
        start += length
    return mask


def by_dense_mask(
    tensors: Sequence[torch.Tensor], lengths: Sequence[int] = LENGTHS, shared: Sequence[int] = SHARED[0]
) -> torch.Tensor:
    """(1, T, 6, 16): attention of query, key and value by scaled dot products with the dense mask."""
    query, key, value = tensors
    mask = dense_mask(lengths, shared)
    return F.scaled_dot_product_attention(query, key, value, mask, scale=SCALING, enable_gqa=True).transpose(1, 2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """(1, S, 6, 16): our attention, by default over documents of `LENGTHS`."""
    keywords = {"documents": Documents.of(LENGTHS, query.device), **keywords}
    output, _ = varlen_attention(torch.nn.Module(), query, key, value, None, scaling=SCALING, **keywords)
    return output
