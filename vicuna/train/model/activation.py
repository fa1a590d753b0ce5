"""Activation checkpointing and compilation of the decoder layers.

What a layer keeps from its forward pass for its backward pass:

    none       everything: fastest, and at 4,096 tokens a 13B model keeps 32 GB of it
    selective  the outputs of matrix products and attention; norms, activations and rotations are recomputed
    full       the layer's input alone; the whole layer is recomputed, a third more work

The results are bit-equal: what is recomputed is computed by the same kernels from the same inputs.

Before: `conversation_model`, with adapters already in place. After: `parallel`, whose hooks are on the layer module and
run once, however often the layer's forward does.
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
"""Operations that cost much to recompute next to the size of their output. `bmm` is attention by matrix products."""


def checkpoint_layers(model: ConversationModel, kind: str, *, is_random: bool = False) -> None:
    """Apply activation checkpointing of this kind (none, selective, full) to every decoder layer.

    Args:
        is_random: a layer draws random numbers (an adapter's dropout), and must draw the same ones when recomputed.
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
    """Compile the forward of every decoder layer (one compilation serves them all). Before `checkpoint_layers`.

    Attention is left uncompiled: its document bounds differ in every batch, and each would be compiled anew.
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
