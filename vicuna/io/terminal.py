r"""The one way to a terminal or a log: nothing that came from outside may steer what shows it.

Before: `log`, `options.command`, and every program that prints a result. A text from outside (an id, a name, a path, a
message of a server) may hold sequences that move the cursor, set the clipboard or the title, overwrite a line, turn the
reading direction or hide letters. They are shown instead, as `\x1b` or `\u202e`; a secret is shown as `[secret]`; what
is longer than anyone reads is cut in its middle, with its length. Colours are put around a text after that (`Styled`).

Two forms: a line (`printable`: ids, names, messages; a line break is shown) and a text of several lines
(`printable_lines`: replies, records; line breaks, also those of Unicode, and tabs are kept).

No script is broken: a format character stays where a script needs it and no other character could be meant, that is
joiners behind a letter of a script that joins (Arabic, Indic and other scripts of Asia) and between emoji, zero-width
spaces within scripts without spaces, the tags of flags, variation selectors. Marks of direction are shown always.
"""

import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from vicuna.io import secrets, streams

MAX_LINE_CHARACTERS = 2_000
MAX_TEXT_CHARACTERS = 200_000
MAX_CELL_CHARACTERS = 200  # of a table, whose other rows are as wide
COLORS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}

# Control characters, half surrogate pairs, marks of direction, separators of lines, fillers, what has no width.
_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINING = (
    r"\u0620-\u109f\u1780-\u18af\u1a20-\u1aff\u1b00-\u1c4f\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"
)
_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
_EMOJI = r"\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff"
_JAMO = r"\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"
_HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KEPT = "|".join(
    (
        rf"(?<=[{_JOINING}])[\u200c\u200d](?![{_HIDDEN}])",
        rf"(?<=[{_EMOJI}])\u200d(?=[{_EMOJI}])",
        rf"(?<=[{_SPACELESS}])\u200b(?=[{_SPACELESS}])",
        r"(?<=\U0001f3f4)[\U000e0020-\U000e007e]{1,16}\U000e007f",
        rf"(?<=[{_HAN}])[\U000e0100-\U000e01ef]",
        r"(?<=[\u1820-\u18af])[\u180b-\u180f]",
        rf"(?<=[{_JAMO}])[\u115f\u1160]|[\u115f\u1160](?=[{_JAMO}])",
        r"(?<=[\u0300-\u036f\u0591-\u05ff])\u034f",
        r"[\u0600-\u0605\u0890\u0891](?=[0-9\u0620-\u08ff])|[\u06dd\u08e2](?=[0-9\u0620-\u08ff])",
        r"\u070f(?=[\u0710-\u074f])|[\U000110bd\U000110cd](?=[\U00011080-\U000110ff])",
        r"(?<=[\U00013000-\U0001345f])[\U00013430-\U0001345f]",
    )
)
_IN_LINE = re.compile(rf"(?P<kept>{_KEPT})|[{_HIDDEN}]")
_IN_LINES = re.compile(rf"(?P<kept>[\n\t\u2028\u2029]|{_KEPT})|(?P<end>\r\n)|[{_HIDDEN}]")
_UNDECIDED = re.compile(rf"[^{_HIDDEN}]?[{_HIDDEN}]*\Z")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


@dataclass(frozen=True)
class Styled:
    """A text and the names of its colours, shown in them on a terminal; NO_COLOR turns them off.

    Attributes:
        plain: what stands for the colours where there are none, with `{}` for the text.
    """

    text: str
    names: tuple[str, ...]
    plain: str = "{}"


def style(text: str, *names: str, plain: str = "{}") -> Styled:
    """`text` in the named colours (`COLORS`); see `Styled`."""
    return Styled(text, names, plain)


Line = str | Styled | Sequence[str | Styled]


def printable(text: str, *, limit: int = MAX_LINE_CHARACTERS) -> str:
    """One line for a terminal or log: whatever would steer or hide is shown, line breaks too.

    Args:
        limit: characters; a longer text is cut in its middle, where its length is said.
    """
    return _shown(_IN_LINE, _cut(secrets.redact(text), limit))


def printable_lines(text: str, *, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """A text of several lines for a terminal: as `printable`, but line breaks and tabs are kept."""
    return _shown(_IN_LINES, _cut(secrets.redact(text, has_patterns=False), limit))


def write(*lines: Line) -> None:
    """Print lines of a result to stdout."""
    _write("".join(f"{_rendered(line, sys.stdout, is_text=False)}\n" for line in lines))


def write_text(text: Line, end: str = "\n") -> None:
    """Print a text of several lines to stdout."""
    _write(_rendered(text, sys.stdout, is_text=True) + end)


def write_json(value: Any, *, indent: int | None = None, is_ascii: bool = True) -> None:
    """Print a value to stdout as JSON, which is never cut: what would steer or hide is escaped as JSON does it."""
    _write(printable_json(json.dumps(value, indent=indent, ensure_ascii=is_ascii, default=secrets.json_value)) + "\n")


def printable_json(text: str) -> str:
    """JSON text with escapes for the characters that would steer or hide; the value stays, but for secrets."""
    return _IN_LINES.sub(_json_escape, secrets.redact(text))


def write_more(text: str, start: int, *, is_last: bool) -> int:
    """Print what a growing text has gained to stdout, at once; returns where to go on.

    A last character that what follows may change (a joiner, half a line break) waits for it.

    Args:
        start: how many characters have been printed.
        is_last: nothing follows; nothing waits.
    """
    end = len(text) if is_last else max(start, _undecided(text))
    _write(_shown(_IN_LINES, text, start, end))
    return end


def say(line: Line, end: str = "\n") -> None:
    """Write a line to stderr; where nobody reads it any more, it is dropped and the program goes on.

    (A Ctrl-C in `vicuna train 2>&1 | tee log` ends `tee` at once, and the run must still save its checkpoint.)
    """
    _say(_rendered(line, sys.stderr, is_text=False) + end)


def say_text(text: Line, end: str = "\n") -> None:
    """Write a text of several lines to stderr, as `say` does."""
    _say(_rendered(text, sys.stderr, is_text=True) + end)


def redraw(line: str) -> None:
    """Write a line over the one that the cursor stands in, on stderr."""
    _say(f"\r\033[K{printable(line)}")


def take_over() -> None:
    """Let what Python and the libraries write by themselves pass here: warnings, tracebacks, messages of loggers."""
    warnings.formatwarning = _format_warning
    logging.setLogRecordFactory(_Record)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = say_traceback


def say_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write a traceback to stderr."""
    say_text("".join(traceback.format_exception(kind, error, trace)), end="")


class _Record(logging.LogRecord):
    """A message of a logger; whichever handler writes it, it is cleaned before."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = printable_lines("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))
        if self.stack_info:
            self.stack_info = printable_lines(self.stack_info)

    def getMessage(self) -> str:
        """The message with its arguments."""
        return printable_lines(super().getMessage())


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    del line  # the line of code tells a user nothing
    return f"{printable(f'{filename}:{lineno}: {category.__name__}: {message}')}\n"


def _shown(pattern: re.Pattern[str], text: str, start: int = 0, end: int = sys.maxsize) -> str:
    """`text` from `start` to `end`, with what is hidden shown; what stands before `start` counts as the neighbour."""
    parts = []
    for found in pattern.finditer(text, start, end):
        parts += [text[start : found.start()], _escape(found)]
        start = found.end()
    return "".join([*parts, text[start:end]])


def _escape(found: re.Match[str]) -> str:
    if found.lastgroup == "kept":
        return found[0]
    if found.lastgroup == "end":
        return "\n"
    code = ord(found[0])
    return _NAMED.get(found[0]) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _json_escape(found: re.Match[str]) -> str:
    if found.lastgroup in ("kept", "end"):  # in JSON text, line breaks stand between values only
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}…({len(text):,} characters in all)…{text[len(text) - half :]}"


def _undecided(text: str) -> int:
    """Where the end of a growing text begins that what follows may change."""
    found = _UNDECIDED.search(text, max(0, len(text) - 32))
    return found.start() if found and found.end() - found.start() > 1 else len(text)


def _rendered(line: Line, stream: TextIO, *, is_text: bool) -> str:
    """What is written: each part cleaned, then coloured; the parts of a line share its limit."""
    parts = [line] if isinstance(line, str | Styled) else list(line)
    clean = printable_lines if is_text else printable
    has_colors = not os.environ.get("NO_COLOR") and getattr(stream, "isatty", lambda: False)()
    shown = []
    for part in parts:
        text = clean(part if isinstance(part, str) else part.text)
        if isinstance(part, Styled):
            codes = ";".join(str(COLORS[name]) for name in part.names)
            text = f"\033[{codes}m{text}\033[0m" if has_colors else part.plain.replace("{}", text)
        shown.append(text)
    return "".join(shown)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except RuntimeError:  # from a signal handler, in the middle of another message
        os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))
    except OSError:
        streams.mute(sys.stderr)
