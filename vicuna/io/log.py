"""Messages and progress on stderr; stdout is for a program's result.

A progress bar is drawn on a terminal only; elsewhere (a log file, CI) plain lines with the same figures are printed at
intervals.
"""

import shutil
import sys
import time
from types import TracebackType
from typing import Self

from vicuna.io import terminal
from vicuna.io.terminal import Line, style

BAR_INTERVAL_SECONDS = 0.1
LINE_INTERVAL_SECONDS = 10.0

_is_silent = False


def be_silent() -> None:
    """Print no messages from now on: of several ranks, one prints. Errors are still printed."""
    global _is_silent
    _is_silent = True


def info(*lines: Line) -> None:
    """Print a message, or several lines of one; line breaks within a line are shown as such."""
    if not _is_silent:
        for line in lines:
            terminal.say(line)


def warning(message: str) -> None:
    """Print a message marked as a warning."""
    info([style("warning:", "yellow"), f" {message}"])


def human_bytes(size: float) -> str:
    """`3.4 GiB` and the like."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """`7.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _human_count(value: float, unit: str) -> str:
    return human_bytes(value) if unit == "B" else f"{value:,.0f}"


class Progress:
    """How far a long piece of work is. Use as a context manager and call `update`.

    Args:
        total: the amount of work in `unit`, or None when it is not known.
        description: what is being done.
        unit: the unit counted; `B` is shown as KiB, MiB, GiB.
    """

    def __init__(self, total: float | None, *, description: str, unit: str = "it") -> None:
        self.total, self.description, self.unit = total, description, unit
        self.count = 0.0
        self.fields: dict[str, object] = {}
        self.is_terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self._shown = self.started if not self.is_terminal else 0.0
        self._shown_count = -1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self.is_terminal:
            self._draw()
            info("")
        elif kind is None and self._shown_count != self.count:
            info(self.line())

    def update(self, n: float = 1, **fields: object) -> None:
        """Count `n` more units done, and show the fields (numbers or words) beside them."""
        self.count += n
        self.fields.update(fields)
        now = time.monotonic()
        if now - self._shown >= (BAR_INTERVAL_SECONDS if self.is_terminal else LINE_INTERVAL_SECONDS):
            self._shown, self._shown_count = now, self.count
            self._draw() if self.is_terminal else info(self.line())

    def line(self) -> str:
        """The state in one line of plain text."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        done = _human_count(self.count, self.unit)
        if self.total:
            done = f"{100 * self.count / self.total:.0f}% {done}/{_human_count(self.total, self.unit)}"
        unit = "" if self.unit == "B" else f" {self.unit}"
        parts = [f"{done}{unit}", human_seconds(elapsed)]
        if self.total and 0 < self.count < self.total:
            parts.append(f"{human_seconds(elapsed * (self.total / self.count - 1))} left")
        parts += [f"{name} {_format_field(value)}" for name, value in self.fields.items()]
        return f"{self.description}: {', '.join(parts)}"

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        line = terminal.printable(self.line())
        if self.total and (room := width - len(line) - 4) >= 8:
            filled = round(min(room, 30) * min(1.0, self.count / self.total))
            line = f"{line} [{'█' * filled}{' ' * (min(room, 30) - filled)}]"
        if not _is_silent:
            terminal.redraw(line[: width - 1])


def _format_field(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
