"""One model over many ranks (FSDP2, Zhao et al., arXiv:2304.11277, in torch's `fully_shard`).

Every weight is cut into rows, and each rank keeps its rows, their gradients and their optimizer state in fp32. A layer
is whole, in the dtype of the computation, only while it runs: gathered before, dropped after, its gradients summed over
the ranks and cut again. Summed, not averaged: the loss is already divided by the tokens of the whole step.

Before: `model` (built without memory, on the meta device). After: `model` fills each rank's rows, `loop` trains.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard


def shard_model(
    model: torch.nn.Module,
    mesh: DeviceMesh,
    *,
    bf16: bool,
    reshard_after_forward: bool = True,
    cpu_offload: bool = False,
) -> None:
    """Cut a model's weights over the ranks of `mesh`, layer by layer; done before they have memory.

    Args:
        model: a `ConversationModel` on the meta device.
        bf16: gather and compute in bfloat16; weights, gradients and their sums stay in fp32.
        reshard_after_forward: drop a layer after its forward pass and gather it again for the backward pass, which
            saves the memory of a whole model for half as much communication again.
        cpu_offload: keep weights, gradients and optimizer in the host's memory; a layer's rows are copied for its turn.
    """
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32)
    keywords: dict[str, Any] = {"mesh": mesh, "mp_policy": policy}
    if cpu_offload:
        keywords["offload_policy"] = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    causal_lm: Any = model.causal_lm
    for layer in causal_lm.model.layers:
        fully_shard(layer, reshard_after_forward=reshard_after_forward, **keywords)
    if causal_lm.lm_head.weight is not causal_lm.model.embed_tokens.weight:
        fully_shard(causal_lm.model.embed_tokens, reshard_after_forward=reshard_after_forward, **keywords)
    fully_shard(model, **keywords)  # the rest: last norm and output head, which the loss needs whole
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            if mesh.device_type == "cpu":  # gloo cannot scale while it sums
                module.set_force_sum_reduction_for_comms(True)


def reshard(model: torch.nn.Module) -> None:
    """Drop what a forward pass without a backward pass has left whole, so that `model` shows its shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's rows of a tensor, or all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows_of_ranks(tensor: torch.Tensor) -> list[tuple[int | None, int]]:
    """Which rank holds how many rows of a tensor, from the first row to the last; None where every rank has all.

    The ranks hold equal parts, as `torch.chunk` cuts them: the last ones less, or nothing.
    """
    num_rows = tensor.shape[0] if tensor.ndim else 1
    if not isinstance(tensor, DTensor):
        return [(None, num_rows)]
    assert tensor.placements == (Shard(0),)
    per_rank = -(-num_rows // tensor.device_mesh.size())
    return [
        (rank, max(0, min(per_rank, num_rows - per_rank * place)))
        for place, rank in enumerate(tensor.device_mesh.mesh.tolist())
    ]


def rows_like(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A tensor of which this rank has `rows`, as many as it has of `weight`, and the other ranks likewise."""
    if not isinstance(weight, DTensor):
        return rows
    shape = torch.Size((weight.shape[0], *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows, weight.device_mesh, weight.placements, run_check=False, shape=shape, stride=stride)


def first_row(tensor: torch.Tensor) -> int:
    """Where this rank's rows begin in the whole tensor."""
    if not isinstance(tensor, DTensor):
        return 0
    return sum(num_rows for _, num_rows in rows_of_ranks(tensor)[: tensor.device_mesh.get_local_rank()])
