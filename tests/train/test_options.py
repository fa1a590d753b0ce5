"""Options out of range, and options that exclude each other, are refused by name."""

from typing import Any

import pytest

from tests.train.builders import MakeOptions
from vicuna.errors import UsageError


def test_compiling_and_selective_checkpointing_exclude_each_other(make_options: MakeOptions) -> None:
    with pytest.raises(UsageError, match="--activation-checkpointing selective must be none or full together with"):
        make_options(compile=True, activation_checkpointing="selective")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "--learning-rate 0.0 must be more than 0"),
        ({"max_steps": 0}, "--max-steps 0 must be at least 1"),
        ({"row_length": 10}, "--row-length 10 must be at least --max-length"),
        ({"eval_steps": 5}, "--eval-steps 5 must be used together with --eval-data"),
        ({"warmup_ratio": 1.0}, "--warmup-ratio 1.0 must be"),
        ({"lora": True, "lora_dropout": 0.1, "share_prefix": "on"}, "--share-prefix on must be auto or off together"),
    ],
)
def test_options_out_of_range(make_options: MakeOptions, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_options(**changes)
