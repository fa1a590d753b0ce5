"""What a decoder layer keeps between its forward and its backward pass, and whether it is compiled.

    none       everything: fastest, and at 4,096 tokens a 13B model keeps 32 GB of it
    selective  the outputs of matrix products and attention; norms, activations and rotations are computed again
    full       the layer's input alone; the whole layer is computed again, a third more work

The numbers are the same to the bit: what is computed again is computed by the same kernels from the same inputs.

Before: `model`, with adapters already in place. After: sharding, whose hooks lie round a layer, so that they run once
however often its inside does.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import AttentionInterface

from vicuna.train.model.attention import NAME as ATTENTION
from vicuna.train.model.attention import varlen_attention
from vicuna.train.model.conversation_model import ConversationModel

SAVED_OPERATIONS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
}
"""Expensive to compute again, next to their size. Scaled-dot-product attention in plain matrix products is `bmm`."""


def checkpoint_layers(model: ConversationModel, kind: str, *, is_random: bool = False) -> None:
    """Let every decoder layer keep only what `kind` (none, selective, full) says.

    Args:
        is_random: something in a layer is drawn at random, an adapter's dropout, and must be drawn again alike.
    """
    if kind == "none":
        return
    assert kind in ("selective", "full"), kind
    keywords = {} if kind == "full" else {"context_fn": _selective_contexts}
    for layer in model.causal_lm.model.layers:
        layer.forward = functools.partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=is_random, **keywords
        )


def compile_layers(model: ConversationModel) -> None:
    """Compile the inside of every decoder layer (one compilation serves them all). Before `checkpoint_layers`.

    Attention stays as it is: its document bounds are others in every batch, and each would be compiled anew.
    """
    AttentionInterface.register(ATTENTION, torch.compiler.disable(varlen_attention))
    for layer in model.causal_lm.model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)


def _selective_contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_context: Any, operation: Callable[..., Any], *_: Any, **__: Any) -> CheckpointPolicy:
    name = getattr(operation, "_schema", None)
    is_saved = name is not None and name.name in SAVED_OPERATIONS
    return CheckpointPolicy.MUST_SAVE if is_saved else CheckpointPolicy.PREFER_RECOMPUTE
