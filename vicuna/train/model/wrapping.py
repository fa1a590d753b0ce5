"""Adapters, compilation, activation checkpointing and sharding of a model, applied in the one order in which they work.

A training run and the planner both wrap the model here, so that the planner measures the model that is trained.

Before: `conversation_model` (built on the meta device). After: `conversation_model` fills the weights; the planner only
counts them.
"""

from torch.distributed.device_mesh import DeviceMesh

from vicuna.train.model.activation import checkpoint_layers, compile_layers
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.lora import add_adapters
from vicuna.train.model.parallel import shard_model
from vicuna.train.options import TrainOptions


def wrap_model(
    model: ConversationModel, options: TrainOptions, *, checkpointing: str, mesh: DeviceMesh | None, bf16: bool
) -> None:
    """Add adapters, compile and checkpoint the layers, and shard the model, as far as `options` say; all in place.

    Args:
        model: on the meta device.
        checkpointing: none, selective or full, in place of the `auto` that `options` may say.
        mesh: the ranks that the model is sharded over; None for an unsharded model.
        bf16: compute in bfloat16.
    """
    if options.has_adapter:
        add_adapters(model.causal_lm, options, bf16=bf16)
    if options.compile:
        compile_layers(model)
    checkpoint_layers(model, checkpointing, is_random=options.has_adapter and options.lora_dropout > 0)
    if mesh is not None:
        shard_model(
            model,
            mesh,
            bf16=bf16,
            reshard_after_forward=options.reshard_after_forward,
            cpu_offload=options.cpu_offload,
        )
