"""The optimizer: which weights it updates, and how.

Before: the model. After: `loop` steps it, `checkpoint` saves its state, `estimate` counts its memory.
"""

import torch

from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.optim.adam8bit import AdamW8bit
from vicuna.train.options import TrainOptions


def make_optimizer(model: ConversationModel, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101); weight decay on matrices, not on norms and biases."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (options.adam_beta1, options.adam_beta2)
    if options.optim == "adamw_8bit":
        return AdamW8bit(groups, lr=options.learning_rate, betas=betas, eps=options.adam_epsilon)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.adam_epsilon, fused=True)
