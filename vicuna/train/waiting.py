"""How training's threads wait for each other, set before torch is loaded.

After each kernel a thread that is done waits for the others. By default it spins, for milliseconds: on cores that
another process wants too, it burns what the others need. Here it spins for some microseconds, as long as the threads of
a kernel are usually apart, and then sleeps. The figures are those of `scripts/bench/neighbour.py`.

Before: `__main__`. After: OpenMP, which reads the environment when torch is loaded.
"""

import os

SPINS = 1000
"""Turns of a waiting thread's loop before it sleeps, some microseconds (GNU's OpenMP, in torch's wheels for CPUs)."""
SPIN_MILLISECONDS = 1
"""The same for Intel's OpenMP, which counts in milliseconds and takes 200."""
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_without_spinning() -> None:
    """Let waiting threads sleep soon, unless the user has said how they wait."""
    if not any(name in os.environ for name in NAMES):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
        os.environ["KMP_BLOCKTIME"] = str(SPIN_MILLISECONDS)
