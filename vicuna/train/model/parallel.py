"""One model over many ranks (FSDP2, Zhao et al., arXiv:2304.11277, in torch's `fully_shard`).

Every weight is sharded along its first dimension, and each rank keeps its shard, the shard's gradient and optimizer
state in fp32. A layer is gathered in the dtype of the computation before it runs and resharded after; its gradients are
reduce-scattered. Summed, not averaged: the loss is already divided by the supervised tokens of the whole step.

Before: `conversation_model` (built on the meta device). After: `conversation_model` fills each rank's shards, `loop`
trains.
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
    """Shard a model's weights over the ranks of `mesh`, layer by layer; before they have memory.

    Args:
        model: a `ConversationModel` on the meta device.
        bf16: gather and compute in bfloat16; weights, gradients and their sums stay in fp32.
        reshard_after_forward: reshard a layer after its forward pass and gather it again for the backward pass, which
            saves the memory of a whole model for half as much communication again.
        cpu_offload: keep weights, gradients and optimizer in the host's memory; a layer's shards are copied to the
            device for its forward and backward pass.
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
    """Reshard what a forward pass without a backward pass has left gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a tensor, or all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_sizes(tensor: torch.Tensor) -> list[tuple[int | None, int]]:
    """(rank, number of rows) of each shard of a tensor, in order; (None, all rows) of one that is not sharded.

    Shards are equal, as `torch.chunk` cuts them: the last ones smaller, or empty.
    """
    num_rows = tensor.shape[0] if tensor.ndim else 1
    if not isinstance(tensor, DTensor):
        return [(None, num_rows)]
    assert tensor.placements == (Shard(0),)
    per_rank = -(-num_rows // tensor.device_mesh.size())
    return [
        (rank, max(0, min(per_rank, num_rows - per_rank * index)))
        for index, rank in enumerate(tensor.device_mesh.mesh.tolist())
    ]


def shard_like(shard: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A tensor sharded like `weight`, of which `shard` is this rank's shard."""
    if not isinstance(weight, DTensor):
        return shard
    shape = torch.Size((weight.shape[0], *shard.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(shard, weight.device_mesh, weight.placements, run_check=False, shape=shape, stride=stride)


def shard_start(tensor: torch.Tensor) -> int:
    """The first row of this rank's shard in the whole tensor."""
    if not isinstance(tensor, DTensor):
        return 0
    return sum(num_rows for _, num_rows in shard_sizes(tensor)[: tensor.device_mesh.get_local_rank()])
