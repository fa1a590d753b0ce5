"""The log of a run: `train_log.jsonl`, one entry per logged step or evaluation, `loss.svg`, `throughput.svg`, and
`samples.jsonl`, the generations at each evaluation.

A resumed run first drops the entries after its checkpoint, so that the log is that of a run without a break. Entries
are in the file; in memory are only the numbers of the curves, which are drawn in a bounded size however many they are.

Before: `loop`. After: a person, or the demo's report.
"""

import json
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from vicuna.errors import describe
from vicuna.io import log
from vicuna.io.files import atomic_file
from vicuna.io.jsonl import JsonObject, append_jsonl, write_jsonl
from vicuna.io.machine import peak_memory_bytes
from vicuna.report_page import line_chart
from vicuna.train.watch.reporters import Reporters

LOG = "train_log.jsonl"
GENERATIONS = "samples.jsonl"
CHARTS = ("loss.svg", "throughput.svg")
KEPT_KEYS = frozenset(["loss", "eval_loss", "tokens_per_second", "train_seconds", "peak_memory_bytes", "dollars"])
"""Numbers that are wanted again: drawn, or said at the end."""
MAX_ENTRIES_OF_STEP = 4
MAX_LINE_BYTES = 8 << 20  # of an entry with a generation


@dataclass(frozen=True)
class Meter:
    """The devices of a run, for its utilization and cost.

    Args:
        num_devices: of all ranks.
        peak_flops: of one of them, per second; None where it is not known.
        price_per_hour: dollars for one of them; None likewise.
    """

    device: torch.device
    num_devices: int = 1
    peak_flops: float | None = None
    price_per_hour: float | None = None

    def share_of_peak(self, flops: float, seconds: float) -> float | None:
        """Model FLOPs utilization (MFU; Chowdhery et al., arXiv:2204.02311): FLOPs computed per FLOPs of the peak."""
        return None if self.peak_flops is None else flops / seconds / (self.num_devices * self.peak_flops)

    def dollars(self, seconds: float) -> float | None:
        """The cost of all devices for so long; None where the price is not known."""
        return None if self.price_per_hour is None else self.num_devices * seconds / 3600 * self.price_per_hour


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one optimizer step.

    Args:
        loss_sum: cross-entropy in nats, summed over the supervised tokens, before the update.
        grad_norm: length of the gradient before clipping.
        flops: computed, without recomputation.
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
        output_dir: of its files.
        step: steps done before this start; entries after it are dropped.
        writes: whether this process writes the log; of several ranks one does, and the others' logs stay empty.
        meter: the run's devices.
        reporters: get every entry as well.
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
        self.path, self.generations_path = output_dir / LOG, output_dir / GENERATIONS
        self.chart_paths = tuple(output_dir / name for name in CHARTS)
        self._started = time.monotonic()
        self._curves: dict[str, tuple[array[int], array[float]]] = {}  # steps and values, by key
        self._window: list[StepMetrics] = []
        self._waiting: list[JsonObject] = []  # entries that are missing on the disk
        self.generated_steps: set[int] = set()  # that have generations
        if writes:
            write_jsonl(self.path, self._earlier(step), follows_link=False)
            self._take_generations(step)
        self._spent_before = max((dollars for _, dollars in self.find("dollars")), default=0.0)

    def _earlier(self, step: int) -> Iterator[JsonObject]:
        """The entries of the log up to a step; their numbers are taken."""
        for entry in _whole_entries(self.path):
            if entry["step"] <= step:
                self._take(entry)
                yield entry

    def _take(self, entry: JsonObject) -> None:
        for key in KEPT_KEYS & entry.keys():
            if isinstance(entry[key], int | float):
                steps, values = self._curves.setdefault(key, (array("q"), array("d")))
                steps.append(entry["step"])
                values.append(entry[key])

    def _take_generations(self, step: int) -> None:
        def earlier() -> Iterator[JsonObject]:
            for entry in _whole_entries(self.generations_path):
                if entry["step"] <= step:
                    self.generated_steps.add(entry["step"])
                    yield entry

        if not self.generations_path.is_file() or not write_jsonl(self.generations_path, earlier(), follows_link=False):
            self.generations_path.unlink(missing_ok=True)

    def add(self, entry: JsonObject) -> None:
        """Write one entry; a disk that refuses does not end the run, and the entry is written with the next."""
        if not self.writes:
            return
        self._take(entry)
        if self.reporters:
            self.reporters.add(entry)
        try:
            while self._waiting:
                append_jsonl(self.path, self._waiting[0])
                del self._waiting[0]
            append_jsonl(self.path, entry)
        except OSError as error:
            if not self._waiting:
                log.warning(f"{describe(error)} (the run goes on, its log waits)")
            self._waiting.append(entry)

    def add_step(self, metrics: StepMetrics, *, is_due: bool) -> None:
        """Add a step's figures; if an entry is due, write one over the steps since the last."""
        self._window.append(metrics)
        if not is_due:
            return
        window, self._window = self._window, []
        num_supervised = sum(step.num_supervised for step in window)
        num_tokens = sum(step.num_tokens for step in window)
        seconds = sum(step.seconds for step in window)
        entry: JsonObject = {
            "step": metrics.step,
            "epoch": round(metrics.epoch, 4),
            "loss": sum(step.loss_sum for step in window) / num_supervised,
            "learning_rate": metrics.learning_rate,
            "grad_norm": metrics.grad_norm,
            "tokens": num_tokens,
            "supervised_tokens": num_supervised,
            "supervised_share": round(num_supervised / num_tokens, 4),
            "tokens_per_second": round(num_tokens / seconds, 1),
            "memory_bytes": peak_device_memory_bytes(self.meter.device),
        }
        if (share := self.meter.share_of_peak(sum(step.flops for step in window), seconds)) is not None:
            entry["mfu"] = round(share, 4)
        if (dollars := self.dollars()) is not None:
            entry["dollars"] = round(dollars, 4)
        self.add(entry)

    def dollars(self) -> float | None:
        """The cost of the run until now, earlier starts included as far as they were logged."""
        spent = self.meter.dollars(time.monotonic() - self._started)
        return None if spent is None else self._spent_before + spent

    def shown(self, metrics: StepMetrics) -> dict[str, object]:
        """The figures of a step for the progress bar."""
        fields: dict[str, object] = {
            "loss": metrics.loss_sum / metrics.num_supervised,
            "lr": metrics.learning_rate,
            "grad_norm": metrics.grad_norm,
            "tokens/s": f"{metrics.num_tokens / metrics.seconds:,.0f}",
            "in replies": f"{metrics.num_supervised / metrics.num_tokens:.0%}",
            "memory": log.human_bytes(peak_device_memory_bytes(self.meter.device)),
        }
        if (share := self.meter.share_of_peak(metrics.flops, metrics.seconds)) is not None:
            fields["MFU"] = f"{share:.1%}"
        if (dollars := self.dollars()) is not None:
            fields["cost"] = f"${dollars:,.2f}"
        return fields

    def add_generations(self, step: int, generations: list[dict[str, str]]) -> None:
        """Write the generations after `step` steps: `prompt` and `reply` of each."""
        if not self.writes:
            return
        self.generated_steps.add(step)
        try:
            for generation in generations:
                append_jsonl(self.generations_path, {"step": step, **generation})
        except OSError as error:
            log.warning(f"{describe(error)} (the run goes on without these samples)")

    def add_end(self, step: int, seconds: float, memory_bytes: int) -> None:
        """Write the last entry: time and memory since this start, evaluation included."""
        entry: JsonObject = {"step": step, "train_seconds": round(seconds, 2), "peak_memory_bytes": memory_bytes}
        if (dollars := self.dollars()) is not None:
            entry["dollars"] = round(dollars, 4)
        self.add(entry)

    def close(self) -> None:
        """Close the reporters."""
        if self.reporters:
            self.reporters.close()

    def has(self, step: int, key: str) -> bool:
        """Whether an entry of this step has `key`."""
        return key in self._curves and step in self._curves[key][0][-MAX_ENTRIES_OF_STEP:]

    def find(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every entry that has `key`."""
        return list(zip(*self._curves[key], strict=True)) if key in self._curves else []

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
            with atomic_file(path, follows_link=False) as file:
                file.write(chart)


def _whole_entries(path: Path) -> Iterator[JsonObject]:
    """The entries of a log whose last line may have been cut short by a kill."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
            if line.startswith(b"{") and line.endswith(b"}\n"):
                with suppress(ValueError, RecursionError):  # not as we wrote it
                    entry = json.loads(line)
                    if isinstance(entry.get("step"), int):
                        yield entry


def peak_device_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: of the accelerator, or on a CPU of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory_bytes()
