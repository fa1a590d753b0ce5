"""The log of a run: its figures, after a restart, and on a full disk."""

import errno
import tracemalloc
from pathlib import Path

import pytest
import torch

from tests.train.builders import MakeOptions, log_entries, steps_logged
from vicuna.io.jsonl import JsonObject, append_jsonl, read_jsonl, write_jsonl
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


def test_curves_have_a_bounded_size_however_many_steps_there_are(tmp_path: Path) -> None:
    sizes, held = [], []
    for number in (10_000, 40_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        entries = ({"step": n, "loss": 2 + n % 7, "tokens_per_second": 1e3 - n % 11} for n in range(1, number + 1))
        write_jsonl(folder / "train_log.jsonl", entries)
        tracemalloc.start()
        train_log = TrainLog(folder, number)
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        train_log.draw()
        sizes.append((folder / "loss.svg").stat().st_size)
        assert train_log.find("loss")[-1] == (number, 2 + number % 7)
    assert sizes[1] < 1.2 * sizes[0] < 100_000
    assert held[1] < 40 * 40_000  # two curves of 16 bytes a step


def test_entries_are_written_in_order_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_log = TrainLog(tmp_path, 0)

    def full(path: Path, _: JsonObject) -> None:
        raise OSError(errno.ENOSPC, "full", str(path))

    train_log.add({"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "append_jsonl", full)
        train_log.add({"step": 2})
        train_log.add({"step": 3, "eval_loss": 1.5})
    assert train_log.has(3, "eval_loss") and not train_log.has(2, "eval_loss")
    train_log.add({"step": 4})
    assert [entry["step"] for entry in read_jsonl(tmp_path / "train_log.jsonl")] == [1, 2, 3, 4]
