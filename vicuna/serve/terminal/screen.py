"""Input and output of the terminal chat: how it asks, and how a reply is shown while it grows.

Used by `session`. Three styles write to stdout: live Markdown, plain text, JSON lines. Asking is done by prompt_toolkit
on a terminal and line by line from a pipe. Everything that is not a reply goes to stderr.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol

from markdown_it.token import Token
from prompt_toolkit import PromptSession
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

from vicuna.errors import UsageError, VicunaError, describe
from vicuna.io import terminal
from vicuna.io.files import open_descriptor, vicuna_home
from vicuna.io.terminal import printable, printable_lines, style
from vicuna.serve.client.reply import Reply

DRAWING_SHARE = 4.0  # so much longer than the last drawing took is waited before the next
Style = Literal["rich", "simple", "programmatic"]


class Input(Protocol):
    """Where the questions come from."""

    is_interactive: bool

    def ask(self, draft: str) -> str:
        """The next text. Raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""

    def toggle_multiline(self) -> bool:
        """Let Enter break the line, or send again; true for the first."""


class TerminalInput:
    """A person at a terminal: line editing, a history kept over sessions, texts of several lines."""

    is_interactive = True

    def __init__(self) -> None:
        self._is_multiline = False
        keys = KeyBindings()

        @keys.add("escape", "enter", filter=Condition(lambda: not self._is_multiline))
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        self._session: PromptSession[str] = PromptSession(
            history=_history(), multiline=Condition(lambda: self._is_multiline), key_bindings=keys
        )

    def ask(self, draft: str) -> str:
        return self._session.prompt("> ", default=draft, prompt_continuation="  ")

    def toggle_multiline(self) -> bool:
        self._is_multiline = not self._is_multiline
        return self._is_multiline


class PipeInput:
    """A pipe: each line is a text, or a JSON string that holds one."""

    is_interactive = False

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json

    def ask(self, draft: str) -> str:  # noqa: ARG002 - nobody is there to edit a draft
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        if not self._is_json or not line.strip():
            return line.removesuffix("\n")
        try:
            text = json.loads(line)
        except ValueError:
            text = None
        if not isinstance(text, str):
            raise UsageError(f'{line.strip()[:60]} is not a JSON string; write "Hello" with its quotes')
        return text

    def toggle_multiline(self) -> bool:
        raise UsageError("/multi needs a terminal; with --style programmatic a JSON string holds several lines")


class Terminal:
    """One style of asking and showing."""

    def __init__(
        self, source: Input, show: Callable[[Reply], AbstractContextManager[Callable[[], None]]], *, is_json: bool
    ) -> None:
        self.is_interactive = source.is_interactive
        self.ask = source.ask
        self.toggle_multiline = source.toggle_multiline
        # `with showing(reply) as redraw:` shows the reply anew at each `redraw()`, and in its last form at the end.
        self.showing = show
        self._is_json = is_json

    def info(self, *lines: str) -> None:
        """A remark beside the conversation."""
        for line in lines if any(lines) else ():
            terminal.say(style(line, "dim"))

    def error(self, error: Exception) -> None:
        """A failure that does not end the session; a program that waits for a line gets it as one."""
        if self._is_json:
            terminal.write_json({"error": printable(describe(error))}, is_ascii=False)
        else:
            terminal.say(style(f"error: {describe(error)}", "red"))

    def confirm(self, question: str) -> bool:
        """Ask before something is lost; without anyone to ask, no."""
        if not self.is_interactive:
            return False
        terminal.say(style(f"{question} [y/N] ", "yellow"), end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def open_terminal(chosen: Style | None) -> Terminal:
    """The terminal in the chosen style; without one, rich where a person reads and writes, else simple."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    chosen = chosen or ("rich" if is_terminal else "simple")
    is_json = chosen == "programmatic"
    show = {"rich": show_markdown, "simple": show_text, "programmatic": show_json}[chosen]
    source = TerminalInput() if is_terminal and not is_json else PipeInput(is_json=is_json)
    return Terminal(source, show, is_json=is_json)


@contextmanager
def show_text(reply: Reply) -> Iterator[Callable[[], None]]:
    """New text as it comes, nothing else."""
    shown = 0

    def redraw() -> None:
        nonlocal shown
        shown = terminal.write_more(reply.text, shown, is_last=False)

    try:
        yield redraw
    finally:
        shown = terminal.write_more(reply.text, shown, is_last=True)
        if shown and not reply.text.endswith("\n"):
            terminal.write("")


@contextmanager
def show_json(reply: Reply) -> Iterator[Callable[[], None]]:
    """One JSON object when the reply has ended; for a reply that failed, `Terminal.error` prints one."""
    yield lambda: None
    if reply.finish_reason == "error" or not reply.text.strip():
        return
    usage = vars(reply.usage) if reply.usage else None
    answer = {"content": reply.text, "finish_reason": reply.finish_reason, "usage": usage}
    terminal.write_json({**answer, "tokens_per_second": reply.tokens_per_second()}, is_ascii=False)


@contextmanager
def show_markdown(reply: Reply) -> Iterator[Callable[[], None]]:
    """Markdown that is drawn while it is written.

    Only the last, unfinished block is redrawn; finished ones are printed once, so that a reply longer than the screen
    scrolls like any other output.
    """
    console = Console()
    printed = 0
    not_before = 0.0
    with Live("…", console=console, refresh_per_second=10, vertical_overflow="ellipsis", transient=True) as live:

        def redraw() -> None:
            nonlocal printed, not_before
            began = time.monotonic()
            if began < not_before:
                return  # the next one shows it too
            if end := finished_length(reply.text[printed:]):
                console.print(_SafeMarkdown(reply.text[printed : printed + end]), "")
                printed += end
            if reply.text[printed:].strip():
                live.update(_SafeMarkdown(reply.text[printed:]))
            # A long block costs by its length each time: no more than a part of the time goes into drawing.
            not_before = time.monotonic() + DRAWING_SHARE * (time.monotonic() - began)

        try:
            yield redraw
        finally:
            live.update("")
    if reply.text[printed:].strip():
        console.print(_SafeMarkdown(reply.text[printed:]))


def finished_length(text: str) -> int:
    """How many characters of growing Markdown form blocks that later text cannot change.

    A block ends at a blank line outside fences, unless what follows may still belong to it (a list, an indent).
    """
    end = offset = 0
    fence = ""
    is_after_blank = False
    for line in text.splitlines(keepends=True):
        word = line.strip()
        opening = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if opening and opening[1].startswith(fence) and not word.strip(fence[0]):
                fence = ""
        else:
            continues = line[:1].isspace() or bool(re.match(r"([-*+]|\d{1,9}[.)]|>)(\s|$)", line))
            # A line that is still growing may become another kind of block: "1" may become "1. item".
            if is_after_blank and word and line.endswith("\n") and not continues:
                end = offset
            if opening:
                fence = opening[1]
        is_after_blank = not word and not fence
        offset += len(line)
    return end


class _SafeMarkdown(Markdown):
    """Markdown for a terminal whose texts are cleaned before they are parsed, and after: `&#x202e;` is a character."""

    def __init__(self, text: str) -> None:
        super().__init__(printable_lines(text))
        _clean(self.parsed)


def _clean(tokens: Sequence[Token]) -> None:
    for token in tokens:
        token.content = printable_lines(token.content)
        token.info = printable(token.info)
        token.attrs = {
            name: printable(value) if isinstance(value, str) else value for name, value in token.attrs.items()
        }
        _clean(token.children or ())


def _history() -> History:
    path = Path(vicuna_home()) / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Questions are private: readable by their owner only.
        os.close(open_descriptor(path, "ab", permissions=0o600))
    except (OSError, VicunaError):
        return InMemoryHistory()
    return FileHistory(path)
