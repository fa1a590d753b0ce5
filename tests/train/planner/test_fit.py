"""The fastest checkpointing that fits is chosen; where none fits, the message names what does."""

from typing import Any

import pytest

from tests.train.builders import MakeOptions
from vicuna.errors import VicunaError
from vicuna.train.planner import fit
from vicuna.train.planner.estimate import MemoryEstimate, Setting
from vicuna.train.planner.hardware import GIB, Gpu, get_shape
from vicuna.train.planner.options import PlanOptions
from vicuna.train.planner.report import make_plan


def test_a_run_that_cannot_fit_is_refused_with_what_fits() -> None:
    shape: dict[str, Any] = {"model_shape": "smollm2-1-7b", "max_length": 1024}
    with pytest.raises(VicunaError, match=r"does not fit on 1 x rtx-4090: it takes [\d.]+ GiB of 23.5") as caught:
        make_plan(PlanOptions(**shape, gpu="rtx-4090"))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 1
    assert "--cpu-offload (" in message
    number = int(message.split(" of these GPUs")[0].split()[-1])
    assert make_plan(PlanOptions(**shape, gpu=f"rtx-4090:{number}")).fit.is_possible
    assert make_plan(PlanOptions(**shape, gpu="rtx-4090", cpu_offload=True)).fit.is_possible


def test_the_fastest_checkpointing_that_fits_is_chosen(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"none": 50, "selective": 30, "full": 10}

    def estimate(_config: Any, _options: Any, setting: Setting) -> MemoryEstimate:
        return MemoryEstimate({"activations": sizes[setting.activation_checkpointing] * GIB}, "forward", 5 * GIB)

    def chosen(gib: int, **changes: Any) -> tuple[str, bool]:
        hardware = fit.Hardware(Gpu("some", gib * GIB))
        found = fit.find_fit(get_shape("llama-7b"), make_options(**changes), hardware, step)
        return found.checkpointing, found.is_possible

    monkeypatch.setattr(fit, "estimate_memory", estimate)
    step = fit.MicroBatch((512,), 512, False, True)
    assert chosen(60) == ("none", True)
    assert chosen(40) == ("selective", True)
    assert chosen(20) == ("full", True)
    assert chosen(8) == ("full", False)
    assert chosen(40, compile=True) == ("full", True)
    assert chosen(40, activation_checkpointing="none") == ("none", False)
    assert chosen(4) == (
        "none",
        False,
    )  # weights, gradients and optimizer alone are more than that: nothing else is tried
