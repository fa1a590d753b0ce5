"""The peak memory of a process and all its descendants together, sampled while they run."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")


class MemoryWatch:
    """Samples the proportional set size of a process and its descendants; a context manager.

    Args:
        interval_seconds: between two samples.
        pid: the process; by default this one.

    Attributes:
        peak_bytes: the largest sum seen; 0 where there is no `/proc` (then nothing is known).
    """

    def __init__(self, interval_seconds: float = 1.0, pid: int | None = None) -> None:
        self.interval_seconds = interval_seconds
        self.pid = os.getpid() if pid is None else pid
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, _tree(self.pid))))


def _tree(root: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, int] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            # pid (name) state parent ...; a name may hold spaces and parentheses
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _memory(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
