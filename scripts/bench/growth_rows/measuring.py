"""A row of the growth bench, and its measuring: one forked process for each size, two exponents fitted to all sizes."""

import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TIME_BOUND = 1.15
MEMORY_BOUND = 1.05
STREAMING_BOUND = 0.1  # of memory, where a file goes through
REPEATS = 3
MOST_REPEATS = 7
FLOOR_SECONDS = 0.004  # what is cheaper is measured as this: a clock tells no more
FLOOR_BYTES = 8 << 20  # the same for memory, of which the allocator keeps some
SHOWN_LINES = 3  # of what failed work printed
QUICK = 4  # by so much smaller are the sizes of --quick

Work = Callable[[], object]
Costs = tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]  # sizes, CPU-seconds, bytes


@dataclass(frozen=True)
class Row:
    """One entry point under inputs that differ in size only.

    Args:
        name: of the row, unique.
        prepare: makes an input of a size in an empty folder (not measured), and returns what is measured.
        sizes: three or more, each four times the last.
        unit: of the sizes, in the plural.
        covers: the entry points that the row stands for, as `entry_points` names them.
        time_bound: the largest exponent of CPU time that is right.
        memory_bound: the largest exponent of memory that is right.
        why: the reason for a bound above the usual one.
    """

    name: str
    prepare: Callable[[int, Path], Work]
    sizes: tuple[int, ...]
    unit: str
    covers: tuple[str, ...] = ()
    time_bound: float = TIME_BOUND
    memory_bound: float = MEMORY_BOUND
    why: str = ""


@dataclass(frozen=True)
class Fit:
    """What a row's sizes cost (medians), and the exponents fitted to them."""

    row: Row
    sizes: tuple[int, ...]
    cpu_seconds: tuple[float, ...]
    memory_bytes: tuple[int, ...]
    exponent: float = field(init=False)
    memory_exponent: float = field(init=False)

    def __post_init__(self) -> None:
        seconds = [max(FLOOR_SECONDS, value) for value in self.cpu_seconds]
        sizes_bytes = [max(FLOOR_BYTES, value) for value in self.memory_bytes]
        object.__setattr__(self, "exponent", slope(self.sizes, seconds))
        object.__setattr__(self, "memory_exponent", slope(self.sizes, sizes_bytes))

    @property
    def is_within(self) -> bool:
        """Whether both exponents are at most their bounds."""
        return self.exponent <= self.row.time_bound and self.memory_exponent <= self.row.memory_bound

    @property
    def complaint(self) -> str:
        """What is too much, with the figures of every size."""
        figures = ", ".join(
            f"{size:,}: {seconds:.3f} CPU-s and {memory / 2**20:.1f} MiB"
            for size, seconds, memory in zip(self.sizes, self.cpu_seconds, self.memory_bytes, strict=True)
        )
        bounds = f"time {self.exponent:.2f} of {self.row.time_bound}"
        return f"{self.row.name}: {bounds}, memory {self.memory_exponent:.2f} of {self.row.memory_bound} ({figures})"


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent of a power law through the points, by least squares on the logarithms."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def measure_row(row: Row, *, quick: bool = False) -> Costs:
    """Measure every size of a row, and again while an exponent is over its bound: sizes, and medians of their costs.

    Raises:
        RuntimeError: the work failed; the message holds its traceback.
    """
    sizes = tuple(size // QUICK for size in row.sizes) if quick else row.sizes
    found: list[list[tuple[float, int]]] = [[] for _ in sizes]
    while True:
        for size, costs in zip(sizes, found, strict=True):
            costs.append(measure(row, size))
        seconds = tuple(statistics.median(cost for cost, _ in costs) for costs in found)
        memory = tuple(int(statistics.median(peak for _, peak in costs)) for costs in found)
        is_enough = len(found[0]) >= (1 if quick else REPEATS)
        if len(found[0]) == MOST_REPEATS or (is_enough and Fit(row, sizes, seconds, memory).is_within):
            return sizes, seconds, memory


def measure(row: Row, size: int) -> tuple[float, int]:
    """CPU-seconds and peak memory of one size, in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="vicuna-growth-"))
    result = folder / "result.json"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with contextlib.suppress(OSError):
                os.setsid()
            _work(row, size, folder, result)
            status = 0
        except BaseException:  # whatever it is, it must not get into the parent's code
            said = (folder / "stderr").read_text(errors="replace").splitlines()[-SHOWN_LINES:]
            result.write_text(json.dumps({"error": "\n".join([*said, traceback.format_exc(limit=-2)])}))
        finally:
            os._exit(status)
    os.waitpid(child, 0)
    try:
        value = json.loads(result.read_text()) if result.is_file() else {"error": "the process was killed"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "error" in value:
        raise RuntimeError(f"{row.name} at {size:,} {row.unit}:\n{value['error']}")
    return float(value["cpu_seconds"]), int(value["memory_bytes"])


def _work(row: Row, size: int, folder: Path, result: Path) -> None:
    silence, said = os.open(os.devnull, os.O_RDWR), os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT)
    for descriptor, target in ((0, silence), (1, silence), (2, said)):
        os.dup2(target, descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    room = folder / "room"
    room.mkdir()
    work = row.prepare(size, room)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, started = _status("VmRSS"), _cpu_seconds()
    kept = work()
    seconds, peak = _cpu_seconds() - started, _status("VmHWM")
    del kept
    result.write_text(json.dumps({"cpu_seconds": seconds, "memory_bytes": max(0, peak - before)}))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")
