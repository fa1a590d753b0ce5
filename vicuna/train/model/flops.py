"""Floating-point operations of training, counted exactly: matrix products, and attention by pairs of tokens.

A weight of a matrix takes 2 operations per token in the forward pass, 2 for the gradient of its input and 2 for its
own, if it is trained. The output head and the last layer's MLP have only the supervised tokens as input. Attention has,
for a document of n tokens, n^2 / 2 pairs, and n more for each token of its shared prefix. The count is that of a GPU:
on a CPU, where the peak is not known, the last layer's attention has fewer queries too. Recomputation (activation
checkpointing) is not counted, as in MFU.

Before: a model's modules. After: `planner` (hours), `metrics` (MFU).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vicuna.train.batches.dataset import Batch
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.lora import is_4bit


@dataclass(frozen=True)
class TrainingFlops:
    """Floating-point operations of a forward and a backward pass.

    Args:
        per_token: in the matrices of all layers.
        per_supervised: in the last layer's MLP and in the output head, per supervised token.
        per_pair: in attention, per pair of query and key.
    """

    per_token: int
    per_supervised: int
    per_pair: int

    def of(self, num_tokens: int, num_supervised: int, pair_sum: int) -> int:
        """Of documents with `pair_sum` / 2 pairs of query and key."""
        return self.per_token * num_tokens + self.per_supervised * num_supervised + self.per_pair * pair_sum // 2

    def of_batch(self, batch: Batch) -> int:
        """Of a batch, whose documents may share prefixes."""
        documents = batch.documents
        pair_sum = sum(
            own * (own + 2 * shared) for own, shared in zip(documents.lengths, documents.shared, strict=True)
        )
        return self.of(sum(documents.lengths), batch.num_supervised, pair_sum)

    def of_documents(self, lengths: Sequence[int], num_supervised: int) -> int:
        """Of documents of these lengths without shared prefixes."""
        return self.of(sum(lengths), num_supervised, sum(length**2 for length in lengths))


def count_flops(model: ConversationModel) -> TrainingFlops:
    """Count from the shapes of a model's modules, which may be on the meta device."""
    config = model.causal_lm.config
    head = model.causal_lm.lm_head.weight
    layers = model.causal_lm.model.layers
    per_supervised = _of_matrices(layers[-1].mlp)
    per_token = _of_matrices(layers) - per_supervised
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Scores and weighted values take 2 operations each per pair and head dimension, and twice that again backwards.
    per_pair = 3 * 4 * config.num_hidden_layers * config.num_attention_heads * head_dim
    return TrainingFlops(per_token, per_supervised + (6 if head.requires_grad else 4) * head.numel(), per_pair)


def _of_matrices(module: torch.nn.Module) -> int:
    """Per token of a module's input."""
    total = 0
    for weight in module.parameters():
        if weight.ndim == 2:
            number = 2 * weight.numel() if is_4bit(weight) else weight.numel()  # two to a byte
            total += (6 if weight.requires_grad else 4) * number
    return total
