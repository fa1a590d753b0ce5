"""What a run leaves to look at: `train_log.jsonl`, one row per logged step or evaluation, `loss.svg`, `throughput.svg`,
and `samples.jsonl`, what the model answered at each evaluation.

A resumed run first drops the rows after its checkpoint, so that the log reads like that of a run without a break.

Before: `loop`. After: a person, or the demo's report.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vicuna.errors import describe
from vicuna.io import log
from vicuna.io.files import atomic_file
from vicuna.io.jsonl import JsonObject, append_jsonl, write_jsonl
from vicuna.io.machine import peak_memory_bytes
from vicuna.report_page import line_chart
from vicuna.train.watch.reporters import Reporters

LOG = "train_log.jsonl"
SAMPLES = "samples.jsonl"
CHARTS = ("loss.svg", "throughput.svg")


@dataclass(frozen=True)
class Meter:
    """What a step's figures are measured against.

    Args:
        num_devices: that the run has.
        peak_flops: of one of them, per second; None where it is not known.
        price_per_hour: dollars for one of them; None likewise.
    """

    device: torch.device
    num_devices: int = 1
    peak_flops: float | None = None
    price_per_hour: float | None = None

    def share_of_peak(self, flops: float, seconds: float) -> float | None:
        """Model FLOPs utilization (MFU; Chowdhery et al., arXiv:2204.02311): what was computed of what could be."""
        return None if self.peak_flops is None else flops / seconds / (self.num_devices * self.peak_flops)

    def dollars(self, seconds: float) -> float | None:
        """What so much time of all devices costs."""
        return None if self.price_per_hour is None else self.num_devices * seconds / 3600 * self.price_per_hour


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did.

    Args:
        loss_sum: cross-entropy in nats, summed over the supervised tokens, before the update.
        grad_norm: length of the gradient before clipping.
        flops: computed in it, recomputation not counted.
    """

    step: int
    epoch: float
    loss_sum: float
    num_supervised: int
    num_tokens: int
    learning_rate: float
    grad_norm: float
    seconds: float
    flops: int = 0


class TrainLog:
    """The log of one run.

    Args:
        output_dir: where it lies.
        step: steps done before this start; rows after it are dropped.
        writes: whether this process keeps the log; of several ranks one does, and the others' logs stay empty.
        meter: what the figures are measured against.
        reporters: told every row as well.
    """

    def __init__(
        self,
        output_dir: Path,
        step: int,
        *,
        writes: bool = True,
        meter: Meter | None = None,
        reporters: Reporters | None = None,
    ) -> None:
        self.writes, self.meter, self.reporters = writes, meter or Meter(torch.device("cpu")), reporters
        self.path, self.samples_path = output_dir / LOG, output_dir / SAMPLES
        self.chart_paths = tuple(output_dir / name for name in CHARTS)
        self._started = time.monotonic()
        self.rows = [row for row in _whole_rows(self.path) if row["step"] <= step] if writes else []
        self._window: list[StepRecord] = []
        self._is_behind = False  # rows are missing on the disk
        self.sampled_steps: set[int] = set()  # after which the model has answered
        self._spent_before = max((row["dollars"] for row in self.rows if "dollars" in row), default=0.0)
        if writes:
            write_jsonl(self.path, self.rows)
            samples = [row for row in _whole_rows(self.samples_path) if row["step"] <= step]
            self.sampled_steps = {row["step"] for row in samples}
            if samples:
                write_jsonl(self.samples_path, samples)
            else:
                self.samples_path.unlink(missing_ok=True)

    def add(self, row: JsonObject) -> None:
        """Write one row to the disk; one that refuses does not end the run, and gets the row with the next."""
        if not self.writes:
            return
        self.rows.append(row)
        if self.reporters:
            self.reporters.add(row)
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
        seconds = sum(step.seconds for step in window)
        row: JsonObject = {
            "step": record.step,
            "epoch": round(record.epoch, 4),
            "loss": sum(step.loss_sum for step in window) / num_supervised,
            "learning_rate": record.learning_rate,
            "grad_norm": record.grad_norm,
            "tokens": num_tokens,
            "supervised_tokens": num_supervised,
            "supervised_share": round(num_supervised / num_tokens, 4),
            "tokens_per_second": round(num_tokens / seconds, 1),
            "memory_bytes": peak_device_memory_bytes(self.meter.device),
        }
        if (share := self.meter.share_of_peak(sum(step.flops for step in window), seconds)) is not None:
            row["mfu"] = round(share, 4)
        if (dollars := self.dollars()) is not None:
            row["dollars"] = round(dollars, 4)
        self.add(row)

    def dollars(self) -> float | None:
        """What the run has cost until now, the starts before this one included as far as they were logged."""
        spent = self.meter.dollars(time.monotonic() - self._started)
        return None if spent is None else self._spent_before + spent

    def shown(self, record: StepRecord) -> dict[str, object]:
        """The figures of a step for the progress bar."""
        fields: dict[str, object] = {
            "loss": record.loss_sum / record.num_supervised,
            "lr": record.learning_rate,
            "grad_norm": record.grad_norm,
            "tokens/s": f"{record.num_tokens / record.seconds:,.0f}",
            "in replies": f"{record.num_supervised / record.num_tokens:.0%}",
            "memory": log.human_bytes(peak_device_memory_bytes(self.meter.device)),
        }
        if (share := self.meter.share_of_peak(record.flops, record.seconds)) is not None:
            fields["MFU"] = f"{share:.1%}"
        if (dollars := self.dollars()) is not None:
            fields["cost"] = f"${dollars:,.2f}"
        return fields

    def add_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """Keep what the model answers after `step` steps: `prompt` and `reply` of each."""
        if not self.writes:
            return
        self.sampled_steps.add(step)
        try:
            for sample in samples:
                append_jsonl(self.samples_path, {"step": step, **sample})
        except OSError as error:
            log.warning(f"{describe(error)} (the run goes on without these samples)")

    def add_end(self, step: int, seconds: float, memory_bytes: int) -> None:
        """Write the last row: what the training cost since it was last started, evaluation included."""
        row: JsonObject = {"step": step, "train_seconds": round(seconds, 2), "peak_memory_bytes": memory_bytes}
        if (dollars := self.dollars()) is not None:
            row["dollars"] = round(dollars, 4)
        self.add(row)

    def close(self) -> None:
        """Let those who are told as well write what they still hold."""
        if self.reporters:
            self.reporters.close()

    def has(self, step: int, key: str) -> bool:
        """Whether a row of this step holds `key`."""
        return any(row["step"] == step and key in row for row in self.rows)

    def find(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every row that has `key`."""
        return [(row["step"], row[key]) for row in self.rows if key in row]

    def draw(self) -> None:
        """Write the curves of loss and throughput."""
        if not self.writes:
            return
        losses = {"training": self.find("loss"), "held-out": self.find("eval_loss")}
        charts = [
            line_chart(
                {name: points for name, points in losses.items() if points},
                title="Loss per supervised token",
                x_label="step",
                y_label="nats",
            ),
            line_chart(
                {"all devices": self.find("tokens_per_second")},
                title="Throughput",
                x_label="step",
                y_label="tokens a second",
            ),
        ]
        for path, chart in zip(self.chart_paths, charts, strict=True):
            with atomic_file(path) as file:
                file.write(chart)


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log whose last line may have been cut short by a kill."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    return [row for row in rows if isinstance(row.get("step"), int)]


def peak_device_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: of the accelerator, or on a CPU of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory_bytes()
