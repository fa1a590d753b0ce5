"""Counted memory against torch's own profiler."""

import json
from pathlib import Path

import pytest
import torch

from vicuna.train.planner.memory import MemoryCounter


def test_counting_sees_what_the_allocator_gives(tmp_path: Path) -> None:
    """torch's profiler hears of every byte from the allocator itself."""
    with torch.profiler.profile(profile_memory=True) as profile, MemoryCounter() as counter:
        model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(6)))
        for _ in range(2):
            model(torch.randn(512, 256)).relu().sum().backward()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [
        event["args"]
        for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        if event.get("name") == "[memory]"
    ]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    allocated = max(event["Total Allocated"] for event in events) - before
    assert counter.peak().num_bytes == pytest.approx(allocated, rel=0.01)
