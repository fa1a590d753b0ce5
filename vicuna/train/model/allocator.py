"""On a CPU, memory that one operation frees is kept for the next.

glibc gives large pieces back to the system when they are freed and asks for them again a moment later; the system then
clears each page anew. A training step does that with every activation: 340,000 page faults in 13 CPU-seconds of
training, and 130,000 if it is told to keep what it has, for 3% less CPU time and no higher a peak (by hand, with the
model of `scripts/bench/train.py` and glibc 2.36).

Before: `prepare` knows that it is a CPU. After: the loop.
"""

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
LARGEST_KEPT = 32 << 20  # bytes of one piece; glibc takes no more
KEPT = (1 << 31) - 1  # bytes in all; an int
STATED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # by which a user says so himself


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory, unless the environment says what it shall do; elsewhere nothing is done."""
    if any(name in os.environ for name in STATED):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another libc, or none that can be asked
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
