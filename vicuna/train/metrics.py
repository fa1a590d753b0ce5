"""What a run leaves to look at: `train_log.jsonl`, one row per logged step or evaluation, and `loss.svg`.

A resumed run first drops the rows after its checkpoint, so that the log reads like that of a run without a break.

Before: `loop`. After: a person, or the demo's report.
"""

import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vicuna import log
from vicuna.errors import describe
from vicuna.files import atomic_file
from vicuna.jsonl import Row, append_jsonl, write_jsonl
from vicuna.page import line_chart

LOG = "train_log.jsonl"
CHART = "loss.svg"


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did.

    Args:
        loss_sum: cross-entropy in nats, summed over the supervised tokens, before the update.
        grad_norm: length of the gradient before clipping.
    """

    step: int
    epoch: float
    loss_sum: float
    num_supervised: int
    num_tokens: int
    learning_rate: float
    grad_norm: float
    seconds: float

    def shown(self) -> dict[str, object]:
        """The fields for the progress bar."""
        return {
            "loss": self.loss_sum / self.num_supervised,
            "lr": self.learning_rate,
            "grad_norm": self.grad_norm,
            "tokens/s": f"{self.num_tokens / self.seconds:,.0f}",
        }


class TrainLog:
    """The log of one run.

    Args:
        output_dir: where it lies.
        step: steps done before this start; rows after it are dropped.
        writes: whether this process keeps the log; of several ranks one does, and the others' logs stay empty.
    """

    def __init__(self, output_dir: Path, step: int, *, writes: bool = True) -> None:
        self.writes = writes
        self.path = output_dir / LOG
        self.chart_path = output_dir / CHART
        self.rows = [row for row in _whole_rows(self.path) if row["step"] <= step] if writes else []
        self._window: list[StepRecord] = []
        self._is_behind = False  # rows are missing on the disk
        if writes:
            write_jsonl(self.path, self.rows)

    def add(self, row: Row) -> None:
        """Write one row to the disk; one that refuses does not end the run, and gets the row with the next."""
        if not self.writes:
            return
        self.rows.append(row)
        try:
            if self._is_behind:
                write_jsonl(self.path, self.rows)
            else:
                append_jsonl(self.path, row)
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                log.warning(f"{describe(error)} (the run goes on, its log waits)")
            self._is_behind = True

    def add_step(self, record: StepRecord, *, is_due: bool) -> None:
        """Take note of a step; when a row is due, write one over the steps since the last."""
        self._window.append(record)
        if not is_due:
            return
        window, self._window = self._window, []
        num_supervised = sum(step.num_supervised for step in window)
        num_tokens = sum(step.num_tokens for step in window)
        self.add(
            {
                "step": record.step,
                "epoch": round(record.epoch, 4),
                "loss": sum(step.loss_sum for step in window) / num_supervised,
                "learning_rate": record.learning_rate,
                "grad_norm": record.grad_norm,
                "tokens": num_tokens,
                "supervised_tokens": num_supervised,
                "tokens_per_second": round(num_tokens / sum(step.seconds for step in window), 1),
            }
        )

    def add_end(self, step: int, seconds: float, memory_bytes: int) -> None:
        """Write the last row: what the training cost since it was last started, evaluation included."""
        self.add({"step": step, "train_seconds": round(seconds, 2), "peak_memory_bytes": memory_bytes})

    def has(self, step: int, key: str) -> bool:
        """Whether a row of this step holds `key`."""
        return any(row["step"] == step and key in row for row in self.rows)

    def find(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every row that has `key`."""
        return [(row["step"], row[key]) for row in self.rows if key in row]

    def draw(self) -> None:
        """Write the loss curve."""
        if not self.writes:
            return
        curves = {"training": self.find("loss"), "held-out": self.find("eval_loss")}
        chart = line_chart(
            {name: points for name, points in curves.items() if points},
            title="Loss per supervised token",
            x_label="step",
            y_label="nats",
        )
        with atomic_file(self.chart_path) as file:
            file.write(chart)


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log whose last line may have been cut short by a kill."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    return [row for row in rows if isinstance(row.get("step"), int)]


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: of the accelerator, or on a CPU of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
