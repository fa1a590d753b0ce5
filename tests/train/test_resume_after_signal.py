"""A stop signal saves a checkpoint after the step, and the run goes on from there to the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.train.builders import MakeOptions, digest, steps_logged, stop_at_step
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.save.export import export_model
from vicuna.train.watch.evaluate import evaluate


def test_a_signal_during_the_export_waits_for_the_model(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options(save_steps=0)

    def signalled(*arguments: Any, **keywords: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        export_model(*arguments, **keywords)

    monkeypatch.setattr(loop, "export_model", signalled)
    result = train(options)
    assert result.stopped_by is None
    assert (options.output_dir / "model" / "model.safetensors").is_file()
    assert "SIGINT: all steps are done; writing the model" in capsys.readouterr().err


def test_ctrl_c_saves_although_nobody_reads_the_log_any_more(make_options: MakeOptions) -> None:
    options = make_options()
    command = [sys.executable, "-m", "vicuna.train", "--model", str(options.model), "--data", str(options.data[0])]
    command += ["--output-dir", str(options.output_dir), "--max-steps", "100000", "--save-steps", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    log = options.output_dir / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.stderr is not None
    process.stderr.close()  # `2>&1 | tee log`, and the same Ctrl-C ends tee
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert len(whole_checkpoints(options.output_dir)) == 1


def test_a_stop_signal_saves_after_the_step_and_the_run_goes_on_from_there(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = make_options(output_dir=tmp_path / "clean", save_steps=0)
    train(clean)
    options = make_options(output_dir=tmp_path / "stopped", save_steps=0)
    handler = signal.getsignal(signal.SIGTERM)
    stop_at_step(options, 3, monkeypatch)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000003"]
    assert not (options.output_dir / "model").exists()
    train(options)
    assert digest(options) == digest(clean)
    assert steps_logged(options) == [1, 2, 3, 4, 5, 6]


def test_held_out_loss_is_measured_where_it_would_have_been_without_a_stop(
    make_options: MakeOptions, records_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(eval_data=(records_file,), eval_steps=2, save_steps=0)
    stop_at_step(options, 3, monkeypatch)
    train(options)
    assert steps_logged(options, "eval_loss") == [0, 2, 4, 6]


def test_a_stop_during_the_last_evaluation_loses_nothing(
    make_options: MakeOptions, tmp_path: Path, records_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = make_options(output_dir=tmp_path / "clean", save_steps=0)
    train(clean)
    options = make_options(eval_data=(records_file,), save_steps=0)

    def evaluate_and_signal(*arguments: Any) -> Any:
        if (options.output_dir / "train_log.jsonl").read_text().count('"loss"') == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", evaluate_and_signal)
        assert train(options).stopped_by == signal.SIGTERM
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000006"]
    train(options)
    assert digest(options) == digest(clean)
    assert steps_logged(options, "eval_loss") == [0, 6]
