"""Freed memory is kept, unless the environment sets it otherwise."""

import ctypes
import os
import subprocess
import sys

import pytest

from vicuna.train.model import allocator

FAULTS = """
import resource, torch
from vicuna.train.model.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()
def step():
    kept = [torch.zeros(1 << 20) for _ in range(20)]  # 4 MiB each, given back together
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keeps: bool) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    program = [sys.executable, "-c", FAULTS.format(keeps=keeps)]
    return int(subprocess.run(program, env=environment, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc")
def test_freed_memory_is_not_asked_for_again() -> None:
    assert faults(keeps=True) < 0.5 * faults(keeps=False)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    monkeypatch.setattr(ctypes, "CDLL", None)  # to call it would fail
    allocator.keep_freed_memory()


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in allocator.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # says nothing of it
    asked: list[object] = []

    def without_mallopt(name: object) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr(ctypes, "CDLL", without_mallopt)
    allocator.keep_freed_memory()
    assert asked == [None]
