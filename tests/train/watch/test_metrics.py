"""The log of a run: its figures, after a restart, and on a full disk."""

import errno
from pathlib import Path

import pytest
import torch

from tests.train.builders import MakeOptions, log_entries, steps_logged
from vicuna.io.jsonl import JsonObject, append_jsonl
from vicuna.train.loop import train
from vicuna.train.planner.preflight import Preflight
from vicuna.train.watch import metrics
from vicuna.train.watch.metrics import Meter, TrainLog


def test_a_full_disk_under_the_log_does_not_end_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options()
    calls: list[JsonObject] = []

    def full_for_a_while(path: Path, entry: JsonObject) -> None:
        calls.append(entry)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "full", str(path))
        append_jsonl(path, entry)

    monkeypatch.setattr(metrics, "append_jsonl", full_for_a_while)
    train(options)
    assert steps_logged(options) == [1, 2, 3, 4, 5, 6]
    assert "no space left on its disk" in capsys.readouterr().err


def test_an_entry_has_utilization_memory_speed_and_cost(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Preflight.meter
    monkeypatch.setattr(
        Preflight, "meter", lambda self, run: Meter(run.device, 1, 1e12, meter(self, run).price_per_hour)
    )
    options = make_options(price_per_gpu_hour=3600.0, logging_steps=2)
    train(options)
    for entry in log_entries(options, "loss"):
        assert entry["supervised_share"] == pytest.approx(entry["supervised_tokens"] / entry["tokens"], abs=1e-4)
        assert entry["memory_bytes"] > 1 << 20
        assert 0 < entry["mfu"] < 1
    spent = [entry["dollars"] for entry in log_entries(options, "dollars")]
    assert spent == sorted(spent) and 0 < spent[0] < spent[-1] < 3600  # a dollar a second
    assert "memory: at most" in (said := capsys.readouterr().err)
    assert "in replies" in said and "MFU" in said and "cost $" in said
    assert (options.output_dir / "throughput.svg").read_text().count("<polyline") == 1


def test_costs_before_a_restart_are_included(make_options: MakeOptions) -> None:
    options = make_options(price_per_gpu_hour=3600.0)
    log = options.output_dir
    log.mkdir()
    (log / "train_log.jsonl").write_text('{"step": 1, "dollars": 100.0}\n{"step": 5, "dollars": 900.0}\n')
    resumed = TrainLog(log, 2, meter=Meter(torch.device("cpu"), 2, None, 3600.0))
    assert 100 < (resumed.dollars() or 0) < 130
