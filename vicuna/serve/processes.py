"""Child processes that cannot outlive their parent, for `vicuna serve` and its parts, and for the demo.

On Linux the kernel kills a child when its parent dies, however that happens (PR_SET_PDEATHSIG, prctl(2)). Elsewhere the
child asks once a second whether its parent is still there.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

PARENT_VARIABLE = "VICUNA_PARENT_PID"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    keep_fds: Sequence[int] = (),
    *,
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own (so Ctrl-C reaches only us), which dies when we do."""
    parent = os.getpid()

    def die_with_parent() -> None:  # between fork and exec
        assert _libc is not None
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return subprocess.Popen(
        command,
        env={**environment, PARENT_VARIABLE: str(parent)},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=keep_fds,
        start_new_session=True,
        preexec_fn=die_with_parent if _libc else None,
    )


def stop(children: Sequence[subprocess.Popen[bytes]], grace_seconds: float = 5.0) -> None:
    """End children and all that they started: SIGTERM, and SIGKILL for those that are there after `grace_seconds`."""
    for child in children:
        _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def exit_with_parent() -> None:
    """In a child of `spawn` on a system without PR_SET_PDEATHSIG: end when the parent is gone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or _libc is not None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
