import os
import resource
import sys
from pathlib import Path

import pytest

from vicuna.io import machine


def test_cores() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)


def test_cores_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.usable_cores() == os.cpu_count()


def test_memory() -> None:
    peak, available, total = machine.peak_memory_bytes(), machine.available_memory_bytes(), machine.total_memory_bytes()
    assert 10 << 20 < peak < total
    assert 0 < available <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_limit_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "MEMORY_LIMITS", (limit,))
    everything = machine.total_memory_bytes()
    limit.write_text("max\n")
    assert machine.total_memory_bytes() == everything
    limit.write_text("1048576\n")
    assert machine.total_memory_bytes() == 1 << 20


def test_peak_memory_is_in_bytes_on_both_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    known = type("Usage", (), {"ru_maxrss": 5000})
    monkeypatch.setattr(resource, "getrusage", lambda _: known)
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.peak_memory_bytes() == 5000 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine.peak_memory_bytes() == 5000
