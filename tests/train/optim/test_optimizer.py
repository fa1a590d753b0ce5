"""Weight decay is for matrices only."""

from typing import Any

from tests.train.builders import MakeOptions


def test_weight_decay_is_for_matrices_only(make_options: MakeOptions, model: Any) -> None:
    from vicuna.train.optim.optimizer import make_optimizer

    groups = make_optimizer(model, make_options(weight_decay=0.1)).param_groups
    assert {weight.ndim >= 2: group["weight_decay"] for group in groups for weight in group["params"]} == {
        True: 0.1,
        False: 0.0,
    }
    assert sum(len(group["params"]) for group in groups) == len(model.named_weights())
