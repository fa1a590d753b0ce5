"""Attention on a CPU as a sum over blocks, each by torch's flash kernel (Dao et al., arXiv:2205.14135).

A block is a range of queries and the range of keys that they attend to. Besides its output the kernel returns each
query's log-sum-exp: outputs for the same queries and other keys are combined by it, and from the combined output and
log-sum-exp the kernel computes each block's part of the gradients (as in Liu et al., arXiv:2310.01889, whose blocks are
on several machines). So a prefix that documents share is computed once, and the last layer has queries for the
supervised positions only.

Before: `attention` calls it; `documents` lists the blocks. After: the rest of the layer.

Shapes: T keys, S queries (mostly T), H query heads, K key and value heads, D head size.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from vicuna.train.batches.documents import Block

KEYS_AT_A_TIME = 192
"""Of a causal block in the backward pass: the kernel takes 512 at a time, and computes the masked pairs as well."""


class BlockAttention(torch.autograd.Function):
    """Queries (1, H, S, D), keys and values (1, K, T, D) to (1, S, H, D); the causal blocks come first.

    The kernel needs a stride of 1 in D, and does not check it.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block], scale: float
    ) -> torch.Tensor:
        output = _empty_by_token(query, query.dtype)
        log_sum = torch.empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))  # (1, H, S)
        keys, values = (_repeat(tensor, query.shape[1]) for tensor in (key, value))
        for of_queries, of_keys, is_causal in blocks:
            found, found_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query[:, :, of_queries], keys[:, :, of_keys], values[:, :, of_keys], 0.0, is_causal, scale=scale
            )
            if is_causal:  # the first block of these queries
                output[:, :, of_queries] = found
                log_sum[:, :, of_queries] = found_sum
            else:
                earlier = log_sum[:, :, of_queries]
                weight = torch.sigmoid(found_sum - earlier).unsqueeze(-1)
                output[:, :, of_queries].lerp_(found, weight.to(found.dtype))
                log_sum[:, :, of_queries] = torch.logaddexp(earlier, found_sum)
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.blocks, ctx.scale = blocks, scale
        return output.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, log_sum = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        keys, values = (_repeat(tensor, query.shape[1]) for tensor in (key, value))
        grads = [_empty_by_token(tensor, log_sum.dtype).zero_() for tensor in (query, keys, values)]
        for block in ctx.blocks:
            for of_queries, of_keys in _split_keys(block):
                found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    *(tensor[:, :, of_queries] for tensor in (grad, query)),
                    *(tensor[:, :, of_keys] for tensor in (keys, values)),
                    *(tensor[:, :, of_queries] for tensor in (output, log_sum)),
                    0.0,
                    block.is_causal,
                    scale=ctx.scale,
                )
                for whole, span, part in zip(grads, (of_queries, of_keys, of_keys), found, strict=True):
                    whole[:, :, span].add_(part)
        if key.shape[1] != query.shape[1]:
            grads[1:] = [tensor.unflatten(1, (key.shape[1], -1)).sum(2) for tensor in grads[1:]]  # (1, K, T, D)
        return *(tensor.to(query.dtype) for tensor in grads), None, None


def _empty_by_token(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(1, H, T, D) with the strides of a contiguous (1, T, H, D), as the projections before and after need it."""
    _, heads, tokens, size = x.shape
    return torch.empty(1, tokens, heads, size, dtype=dtype).transpose(1, 2)


def _repeat(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(1, K, T, D) to (1, H, T, D): each head of the keys or values serves a group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _split_keys(block: Block) -> Iterator[tuple[slice, slice]]:
    """A causal block in parts of few keys, with the queries that attend to some of them; another block as it is."""
    queries, keys, is_causal = block
    if not is_causal:
        yield queries, keys
        return
    for start in range(0, keys.stop - keys.start, KEYS_AT_A_TIME):
        first = keys.start + start
        yield slice(queries.start + start, queries.stop), slice(first, min(first + KEYS_AT_A_TIME, keys.stop))
