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

# What a child is given of our environment: how to run, where things are, which hardware, threads and proxies to use.
# Secrets are in none of these; the one a child needs is given to it by name.
VARIABLES = """
PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP TERM COLORTERM NO_COLOR COLUMNS LINES PWD
LD_LIBRARY_PATH LD_PRELOAD DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH VIRTUAL_ENV CONDA_PREFIX SYSTEMROOT
VICUNA_HOME HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_ENDPOINT HUGGINGFACE_HUB_CACHE TRANSFORMERS_CACHE
TRANSFORMERS_OFFLINE TRANSFORMERS_VERBOSITY TOKENIZERS_PARALLELISM RAYON_NUM_THREADS GRADIO_TEMP_DIR
ATEN_CPU_CAPABILITY
SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
"""
# What begins so: settings of Python, of libraries of computation, of the system's language and folders.
PREFIXES = """
LC_ XDG_ PYTHON CUDA_ CUBLAS_ NVIDIA_ NCCL_ HIP_ ROCR_ OMP_ KMP_ GOMP_ MKL_ OPENBLAS_ VECLIB_ DNNL_
ONEDNN_ MALLOC_ TORCH_ TORCHINDUCTOR_ PYTORCH_ TRITON_ XLLAMACPP_ GGML_
"""
NEVER = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")  # of what begins so, names with these words
PARENT_VARIABLE = "VICUNA_PARENT_PID"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def child_environment(*names: str) -> dict[str, str]:
    """The part of our environment that a child is given: `VARIABLES`, what begins like `PREFIXES`, and `names`.

    Args:
        names: further variables, such as the one secret that this child needs.
    """
    given, prefixes = {*VARIABLES.split(), *names}, tuple(PREFIXES.split())
    return {
        name: value
        for name, value in os.environ.items()
        if name in given or (name.startswith(prefixes) and not any(word in name.upper() for word in NEVER))
    }


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
