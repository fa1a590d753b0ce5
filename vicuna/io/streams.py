"""Standard streams that may be closed, full, without a reader, or unable to encode a character.

Used by `terminal`, which writes to them, and by `options.command`, which wraps every program's `main`.
"""

import io
import os
import select
import sys
from typing import TextIO


def prepare() -> None:
    """Open the streams that are closed, and let no character fail to be read or written; called first of all."""
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


def finish_stdout() -> bool:
    """Flush stdout; False if that fails, and then stdout is muted."""
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
    """Redirect a stream's descriptor to /dev/null: Python flushes the stream at exit, and would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
