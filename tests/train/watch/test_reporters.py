"""TensorBoard and Weights & Biases get every entry; one that fails does not end the run."""

import sys
import types
from typing import Any

import pytest

from tests.train.builders import MakeOptions
from vicuna.errors import VicunaError
from vicuna.train.loop import train


def test_tensorboard_and_wandb_get_every_entry(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder.endswith("tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert isinstance(value, int | float)
            told.append(("tensorboard", name, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            told.append(("tensorboard", "closed", 0))

    class Page:
        def log(self, numbers: dict[str, float], step: int) -> None:
            told.extend(("wandb", name, step) for name in numbers)

        def finish(self) -> None:
            told.append(("wandb", "closed", 0))

    board: Any = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = SummaryWriter
    wandb: Any = types.ModuleType("wandb")
    wandb.init = lambda **settings: Page() if settings["config"]["max_steps"] == 6 else None
    for name, module in (("torch.utils.tensorboard", board), ("tensorboard", board), ("wandb", wandb)):
        monkeypatch.setitem(sys.modules, name, module)
    train(make_options(report_to=("tensorboard", "wandb")))
    for reporter in ("tensorboard", "wandb"):
        assert {(reporter, "train/loss", step) for step in range(1, 7)} <= set(told)
        assert (reporter, "closed", 0) in told


def test_a_reporter_that_fails_does_not_end_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb: Any = types.ModuleType("wandb")

    def fail(**_: Any) -> None:
        raise RuntimeError("no network")

    wandb.init = fail
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert train(make_options(report_to=("wandb",))).model
    assert capsys.readouterr().err.count("--report-to wandb: no network (the run goes on without it)") == 1


def test_a_reporter_that_is_not_installed_is_refused_before_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = make_options(report_to=("wandb",))
    with pytest.raises(VicunaError, match="--report-to wandb: it is not installed: pip install wandb"):
        train(options)
    assert not options.output_dir.exists()
