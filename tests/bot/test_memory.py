"""Memory of a process and its descendants."""

import os

import pytest

from vicuna.bot.memory import MemoryWatch


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_memory_of_this_process_is_seen() -> None:
    with MemoryWatch(interval_seconds=0.01) as watch:
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        while not watch.peak_bytes:
            pass
        del block
    assert watch.peak_bytes > 64 << 20
