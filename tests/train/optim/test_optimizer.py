"""The optimizer that the options name, with weight decay on matrices only."""

import torch

from tests.train.builders import MakeOptions
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.optim.adam8bit import AdamW8bit
from vicuna.train.optim.optimizer import make_optimizer


def test_weight_decay_is_for_matrices_only(make_options: MakeOptions, model: ConversationModel) -> None:
    groups = make_optimizer(model, make_options(weight_decay=0.1)).param_groups
    assert {weight.ndim >= 2: group["weight_decay"] for group in groups for weight in group["params"]} == {
        True: 0.1,
        False: 0.0,
    }
    assert sum(len(group["params"]) for group in groups) == len(model.named_weights())


def test_the_options_decide_the_optimizer(make_options: MakeOptions, model: ConversationModel) -> None:
    plain = make_optimizer(model, make_options(adam_beta2=0.95, adam_epsilon=1e-6))
    assert type(plain) is torch.optim.AdamW
    assert {(group["betas"], group["eps"]) for group in plain.param_groups} == {((0.9, 0.95), 1e-6)}
    assert type(make_optimizer(model, make_options(optim="adamw_8bit"))) is AdamW8bit


def test_frozen_weights_are_not_updated(make_options: MakeOptions, model: ConversationModel) -> None:
    model.causal_lm.lm_head.weight.requires_grad_(False)
    updated = {id(weight) for group in make_optimizer(model, make_options()).param_groups for weight in group["params"]}
    assert id(model.causal_lm.lm_head.weight) not in updated
    assert len(updated) == len(model.named_weights()) - 1
