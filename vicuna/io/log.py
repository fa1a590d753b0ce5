"""Messages and progress on stderr; stdout is for a program's result.

A progress bar is drawn on a terminal only; elsewhere (a log file, CI) plain lines with the same figures are printed at
intervals.
"""

import os
import shutil
import sys
import time
from types import TracebackType
from typing import Self

from vicuna.io import streams

COLORS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
BAR_INTERVAL_SECONDS = 0.1
LINE_INTERVAL_SECONDS = 10.0

_is_silent = False


def be_silent() -> None:
    """Print no messages from now on: of several ranks, one prints. Errors are still printed."""
    global _is_silent
    _is_silent = True


def _say(text: str) -> None:
    if not _is_silent:
        streams.say(text)


def info(message: str) -> None:
    """Print a message."""
    _say(f"{message}\n")


def warning(message: str) -> None:
    """Print a message marked as a warning."""
    _say(f"{style('warning:', 'yellow', stream=sys.stderr)} {message}\n")


def style(text: str, *names: str, stream: object = None) -> str:
    """`text` in the named colours, if `stream` (stdout by default) is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or not getattr(stream, "isatty", lambda: False)():
        return text
    codes = ";".join(str(COLORS[name]) for name in names)
    return f"\033[{codes}m{text}\033[0m"


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
            _say("\n")
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
        line = self.line()
        if self.total and (room := width - len(line) - 4) >= 8:
            filled = round(min(room, 30) * min(1.0, self.count / self.total))
            line = f"{line} [{'█' * filled}{' ' * (min(room, 30) - filled)}]"
        _say(f"\r\033[K{line[: width - 1]}")


def _format_field(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
