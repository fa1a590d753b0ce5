"""Attention on a CPU as a sum over blocks, each by torch's flash kernel (Dao et al., arXiv:2205.14135).

A block is some queries and the keys that they see. Besides its output the kernel gives the logarithm of each query's
sum of exponentials: outputs for the same queries and other keys are joined by it, and from the joined output and
logarithm the kernel computes each block's share of the gradients (as in Liu et al., arXiv:2310.01889, whose blocks are
on several machines). So a prompt that documents share is computed once, and in the last layer only tokens that are
learned look at all.

Before: `attention` chooses it; `documents` says which blocks. After: the rest of the layer.

Shapes: T keys, S queries (mostly T), H query heads, K key and value heads, D head size.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from vicuna.train.batches.documents import Block

KEYS_AT_A_TIME = 192
"""Of a causal block, going backward: the kernel takes 512 of them, and computes those that nobody sees as well."""


class BlockAttention(torch.autograd.Function):
    """Queries (1, H, S, D), keys and values (1, K, T, D) to (1, S, H, D); a document with itself comes first.

    The kernel wants a head's numbers side by side in memory (a stride of 1 in D), and does not check it.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block], scale: float
    ) -> torch.Tensor:
        output = _empty_by_token(query, query.dtype)
        log_sum = torch.empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))  # (1, H, S)
        keys, values = (_repeat(tensor, query.shape[1]) for tensor in (key, value))
        for rows, columns, is_causal in blocks:
            found, found_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query[:, :, rows], keys[:, :, columns], values[:, :, columns], 0.0, is_causal, scale=scale
            )
            if is_causal:  # the first that these queries see
                output[:, :, rows] = found
                log_sum[:, :, rows] = found_sum
            else:
                earlier = log_sum[:, :, rows]
                share = torch.sigmoid(found_sum - earlier).unsqueeze(-1)
                output[:, :, rows].lerp_(found, share.to(found.dtype))
                log_sum[:, :, rows] = torch.logaddexp(earlier, found_sum)
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.blocks, ctx.scale = blocks, scale
        return output.transpose(1, 2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, log_sum = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        keys, values = (_repeat(tensor, query.shape[1]) for tensor in (key, value))
        grads = [_empty_by_token(tensor, log_sum.dtype).zero_() for tensor in (query, keys, values)]
        for block in ctx.blocks:
            for rows, columns in _columns(block):
                found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    *(tensor[:, :, rows] for tensor in (grad, query)),
                    *(tensor[:, :, columns] for tensor in (keys, values)),
                    *(tensor[:, :, rows] for tensor in (output, log_sum)),
                    0.0,
                    block.is_causal,
                    scale=ctx.scale,
                )
                for whole, places, part in zip(grads, (rows, columns, columns), found, strict=True):
                    whole[:, :, places].add_(part)
        if key.shape[1] != query.shape[1]:
            grads[1:] = [tensor.unflatten(1, (key.shape[1], -1)).sum(2) for tensor in grads[1:]]  # (1, K, T, D)
        return *(tensor.to(query.dtype) for tensor in grads), None, None


def _empty_by_token(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(1, H, T, D), a token's heads side by side in memory, as the projections before and after want them."""
    _, heads, tokens, size = x.shape
    return torch.empty(1, tokens, heads, size, dtype=dtype).transpose(1, 2)


def _repeat(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(1, K, T, D) to (1, H, T, D): each head of the keys or values serves a group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _columns(block: Block) -> Iterator[tuple[slice, slice]]:
    """A causal block in pieces of few keys, with the queries that see some of them; another block as it is."""
    queries, keys, is_causal = block
    if not is_causal:
        yield queries, keys
        return
    for start in range(0, keys.stop - keys.start, KEYS_AT_A_TIME):
        first = keys.start + start
        yield slice(queries.start + start, queries.stop), slice(first, min(first + KEYS_AT_A_TIME, keys.stop))
