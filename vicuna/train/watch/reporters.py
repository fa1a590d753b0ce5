"""The log of a run, reported to TensorBoard and Weights & Biases as well, where `--report-to` names them.

Before: `metrics`, which writes `train_log.jsonl` first. After: their own pages. One that fails does not end the run.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError, describe, require
from vicuna.io import log
from vicuna.io.jsonl import JsonObject
from vicuna.options import to_dict
from vicuna.train.options import TrainOptions

TENSORBOARD = "tensorboard"
Report = Callable[[dict[str, float]], None]
"""Takes the numbers of one entry of the log, `step` among them."""


def check_reporters(options: TrainOptions) -> None:
    """Check before the first step that what `--report-to` names is installed.

    Raises:
        VicunaError: it is not; the message is the `pip install` line.
    """
    for name in options.report_to:
        try:
            require(name, "train")
        except VicunaError:
            raise VicunaError(f"--report-to {name}: it is not installed: pip install {name}") from None


class Reporters:
    """The reporters that `--report-to` names.

    Args:
        options: of the run, which Weights & Biases shows.
    """

    def __init__(self, options: TrainOptions) -> None:
        self._reports: dict[str, Report] = {}
        self._ends: list[Callable[[], Any]] = []
        openers = {"tensorboard": self._open_tensorboard, "wandb": self._open_wandb}
        for name in dict.fromkeys(options.report_to):
            self._guarded(name, functools.partial(openers[name], options))

    def add(self, entry: JsonObject) -> None:
        """Report the numbers of an entry of the log."""
        numbers = {name: value for name, value in entry.items() if isinstance(value, int | float)}
        for name, report in list(self._reports.items()):
            self._guarded(name, functools.partial(report, dict(numbers)))

    def close(self) -> None:
        """Let them write what they have buffered."""
        for end in self._ends:
            self._guarded("the end of a report", end)
        self._ends.clear()

    def _guarded(self, name: str, work: Callable[[], Any]) -> None:
        """Do it; a reporter that fails is named in a warning once, and left out from then on."""
        try:
            work()
        except Exception as error:  # a third party's, over a network
            self._reports.pop(name, None)
            log.warning(f"--report-to {name}: {describe(error)} (the run goes on without it)")

    def _open_tensorboard(self, options: TrainOptions) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(Path(options.output_dir) / TENSORBOARD))

        def report(numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                if name != "step":
                    writer.add_scalar(_title(name), value, int(numbers["step"]))
            writer.flush()

        self._reports["tensorboard"] = report
        self._ends.append(writer.close)

    def _open_wandb(self, options: TrainOptions) -> None:
        wandb: Any = require("wandb", "train")
        directory = Path(options.output_dir)
        page = wandb.init(
            project="vicuna", name=directory.name, dir=str(directory), config=to_dict(options), resume="allow"
        )

        def report(numbers: dict[str, float]) -> None:
            step = int(numbers.pop("step"))
            page.log({_title(name): value for name, value in numbers.items()}, step=step)

        self._reports["wandb"] = report
        self._ends.append(page.finish)


def _title(name: str) -> str:
    """`eval/loss` for `eval_loss`, `train/loss` for `loss`."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
