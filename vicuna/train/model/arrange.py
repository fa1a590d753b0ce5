"""What is done to a model's modules before they have memory, in the one order in which it works.

A training run and the plan of one both come through here, so that the plan is a plan of this very model.

Before: `model` (built on the meta device). After: `model` fills the weights; `estimate` only counts them.
"""

from torch.distributed.device_mesh import DeviceMesh

from vicuna.train.model.activation import checkpoint_layers, compile_layers
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.lora import add_adapters
from vicuna.train.model.parallel import shard_model
from vicuna.train.options import TrainOptions


def arrange(
    model: ConversationModel, options: TrainOptions, *, checkpointing: str, mesh: DeviceMesh | None, bf16: bool
) -> None:
    """Decide what is learned, what the layers keep for the backward pass, and which rank has which rows of the weights.

    Args:
        checkpointing: none, selective or full, which `options` may have left open.
        mesh: the ranks that share the model; None where one process has all of it.
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
