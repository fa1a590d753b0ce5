"""Settings of glibc's malloc for training on a CPU: freed memory is kept for the next allocation.

By default glibc returns large blocks to the system when they are freed and asks for them again a moment later, and the
system then clears each page. A training step does that with every activation: 340,000 page faults in 13 CPU-seconds of
training, and 130,000 where freed memory is kept, for 3% less CPU time and the same peak (by hand, with the model of
`scripts/bench/train.py` and glibc 2.36).

Before: `prepare` calls it for a CPU. After: the loop.
"""

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
MMAP_THRESHOLD_BYTES = 32 << 20  # of one block; glibc takes no more
TRIM_THRESHOLD_BYTES = (1 << 31) - 1  # of free memory in all; an int
ENVIRONMENT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables by which a user sets this; they have the last word."""


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory, unless the environment sets it; with another libc do nothing."""
    if any(name in os.environ for name in ENVIRONMENT):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another libc, or none that can be asked
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
