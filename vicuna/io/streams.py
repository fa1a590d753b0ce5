"""stdin, stdout and stderr as they really come: closed, full, without a reader, or of letters that cannot be.

Stands below `log`, which writes to stderr, and below `options.command`, the frame round every program.
"""

import io
import os
import select
import sys
from typing import TextIO


def prepare() -> None:
    """Make the three streams usable, before a program does anything."""
    # The first file that is opened would get a missing descriptor's number, and what is meant for stderr with it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    stdin, stdout = sys.stdin, sys.stdout
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write to stderr. If nobody can read it any more, the work goes on without.

    (A Ctrl-C in `vicuna train 2>&1 | tee log` ends `tee` at once, and the run must still save its checkpoint.)
    """
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except RuntimeError:  # from a signal handler, in the middle of another `say`
        os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))
    except OSError:
        mute(sys.stderr)


def finish_stdout() -> bool:
    """Write what stdout still holds; False if it cannot be written, and then nothing more is tried."""
    try:
        sys.stdout.flush()
    except OSError:
        mute(sys.stdout)
        return False
    try:  # unbuffered, nothing is left to fail
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor behind it, as in a test
        return True


def mute(stream: TextIO) -> None:
    """Send what a stream holds, and all that follows, to nowhere; Python would fail on it again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
