"""AdamW whose two moments take one byte each instead of four: 2 bytes a weight instead of 8.

A moment is stored as codes into a table of 256 numbers that are dense near zero, times the largest magnitude of its
block (Dettmers et al., arXiv:2110.02861). Two things differ from there. Blocks never cross a matrix row, so that a
moment can be sharded and put together again like its weight, bit for bit. And of the second moment the square root is
stored, which needs half as many decades, and never rounded down to zero, which would make its weight jump. Vectors
(norms, biases) are few and keep their moments in fp32.

Before: `optimizer` makes it. After: `loop` steps it, `checkpoint` saves codes and scales.

Shapes: R rows of a weight's shard, C columns, B blocks of a row.
"""

import functools
import math
from typing import Any

import torch

from vicuna.train.model.parallel import local_shard, shard_like

BLOCK = 256
CHUNK_ELEMENTS = 1 << 24
"""Numbers unpacked at a time: 64 MiB for each moment."""


@functools.cache
def dynamic_table(*, is_signed: bool) -> torch.Tensor:
    """The numbers, at most 256, that the codes stand for, ascending: from -1 or 0 to 1.

    Seven decades; each is cut twice as finely as the one below, because a block's numbers lie mostly within a decade or
    two of its largest. Zero and both ends are exact, so that packing what was unpacked gives the same codes.
    """
    decades = [
        torch.linspace(0.1, 1, 2 ** (decade if is_signed else decade + 1) + 1)[1:] * 10.0 ** (decade - 6)
        for decade in range(7)
    ]
    positive, zero = torch.cat(decades), torch.zeros(1)
    return torch.cat([-positive.flip(0), zero, positive] if is_signed else [zero, positive])


def pack(values: torch.Tensor, *, is_signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, C) fp32 to (R, C) uint8 codes and (R, B) fp32 scales."""
    table = dynamic_table(is_signed=is_signed).to(values.device)
    blocks = _in_blocks(values)  # (R, B, at most BLOCK)
    scale = blocks.abs().amax(dim=-1)
    middles = (table[1:] + table[:-1]) / 2
    if not is_signed:
        middles[0] = 0  # only zero is zero
    codes = torch.bucketize(blocks / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1), middles)
    return codes.to(torch.uint8).flatten(1)[:, : values.shape[1]].contiguous(), scale


def unpack(codes: torch.Tensor, scale: torch.Tensor, *, is_signed: bool) -> torch.Tensor:
    """(R, C) uint8 codes and (R, B) fp32 scales to (R, C) fp32."""
    table = dynamic_table(is_signed=is_signed).to(codes.device)
    values = _in_blocks(table[codes.int()]) * scale.unsqueeze(-1)
    return values.flatten(1)[:, : codes.shape[1]]


def _in_blocks(rows: torch.Tensor) -> torch.Tensor:
    num_blocks = -(-rows.shape[1] // BLOCK)
    if num_blocks > 1:
        rows = torch.nn.functional.pad(rows, (0, num_blocks * BLOCK - rows.shape[1]))
    return rows.unflatten(1, (num_blocks, -1))


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) with moments of 8 bits for matrices.

    Args:
        groups: as for `torch.optim.AdamW`, with `weight_decay` in each.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            self._init_state(weight, state)
        state["step"] += 1
        update = functools.partial(_adamw, group, int(state["step"]))
        rows, gradient = local_shard(weight), local_shard(weight.grad).float()
        if weight.ndim < 2:
            update(rows, gradient, local_shard(state["exp_avg"]), local_shard(state["exp_avg_sq"]))
            return
        rows, gradient = rows.flatten(1), gradient.flatten(1)
        moments = [local_shard(state[name]) for name in ("exp_avg", "exp_avg_scale", "exp_root", "exp_root_scale")]
        num_rows = max(1, CHUNK_ELEMENTS // max(1, rows.shape[1]))
        for parts in zip(*(tensor.split(num_rows) for tensor in (rows, gradient, *moments)), strict=True):
            row, grad, mean_codes, mean_scale, root_codes, root_scale = parts
            mean = unpack(mean_codes, mean_scale, is_signed=True)
            square = unpack(root_codes, root_scale, is_signed=False).square_()
            update(row, grad, mean, square)
            for packed, codes, scale in (
                (pack(mean, is_signed=True), mean_codes, mean_scale),
                (pack(square.sqrt_(), is_signed=False), root_codes, root_scale),
            ):
                codes.copy_(packed[0])
                scale.copy_(packed[1])

    def _init_state(self, weight: torch.Tensor, state: dict[str, Any]) -> None:
        state["step"] = torch.zeros(())
        if weight.ndim < 2:
            state |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            return
        rows = local_shard(weight).flatten(1)
        for name, is_signed in (("exp_avg", True), ("exp_root", False)):
            codes, scale = pack(torch.zeros_like(rows, dtype=torch.float32), is_signed=is_signed)
            state[name], state[f"{name}_scale"] = shard_like(codes, weight), shard_like(scale, weight)


def _adamw(
    group: dict[str, Any],
    step: int,
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
) -> None:
    """One update in place; `mean` and `square` in fp32."""
    beta1, beta2 = group["betas"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    size = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    weight.addcdiv_(mean, size, value=-group["lr"] / (1 - beta1**step))
