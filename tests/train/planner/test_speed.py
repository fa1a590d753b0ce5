"""The share of the peak is the published one."""

import pytest

from vicuna.train.planner.options import PlanOptions
from vicuna.train.planner.report import make_plan


def test_the_share_of_the_peak_is_the_published_one() -> None:
    """llm-foundry's 13B on A100s: its speed comes back for its own model and lengths."""
    plan = make_plan(
        PlanOptions(
            model_shape="llama-13b",
            gpu="a100-80gb:8",
            num_conversations=1000,
            num_tokens=1000 * 2048 * 100,  # nearly all rows are whole documents of 2,048
            supervised_share=1.0,
            activation_checkpointing="none",
        )
    )
    assert plan.speed is not None
    assert plan.speed.tokens_per_second == pytest.approx(2262, rel=0.01)
    assert "llm-foundry" in plan.speed.reason
