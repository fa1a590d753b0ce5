"""Killed anywhere, a run goes on to the same weights, bit for bit; half a checkpoint is never taken for a whole one."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import make_records, save_llama, write_records
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.prepare import prepare
from vicuna.train.ranks import Ranks
from vicuna.train.save import saver
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.save.output import RUN, claim_output_directory

MakeOptions = Callable[..., TrainOptions]


def digest(options: TrainOptions) -> str:
    return hashlib.sha256((options.output_dir / "model/model.safetensors").read_bytes()).hexdigest()


def steps_logged(options: TrainOptions, key: str = "loss") -> list[int]:
    rows = [json.loads(line) for line in (options.output_dir / "train_log.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if key in row]


def leftovers(options: TrainOptions) -> list[Path]:
    return [path for path in options.output_dir.rglob(".*") if path.name.endswith((".tmp", ".old"))]


def train_until(options: TrainOptions, kill_at: int | None) -> tuple[int, int]:
    """Train in a child process that kills itself at its nth durable event: a sync, a rename or an optimizer step.

    Returns:
        The child's wait status, and the events that it counted (0 where it was killed).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return call

        status = 1
        try:
            os.fsync, os.replace = counted(os.fsync), counted(os.replace)
            torch.optim.AdamW.step = counted(torch.optim.AdamW.step)  # type: ignore[method-assign]
            train(options)
            os.write(writer, str(count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        counted_events = pipe.read()
    return os.waitpid(child, 0)[1], int(counted_events or 0)


def check_kills(make_options: MakeOptions, tmp_path: Path, choose: Callable[[int], list[int]]) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    train_until(make_options(output_dir=tmp_path / "first"), None)  # makes the tokens, which the others find made
    status, num_events = train_until(clean, None)
    assert status == 0
    assert num_events > 50
    for kill_at in choose(num_events):
        options = make_options(output_dir=tmp_path / f"killed-{kill_at}")
        status, _ = train_until(options, kill_at)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert not (options.output_dir / "model").exists() or kill_at > num_events - 5
        assert train_until(options, None)[0] == 0
        assert digest(options) == digest(clean), f"killed at event {kill_at} of {num_events}"
        assert steps_logged(options) == steps_logged(clean)
        assert leftovers(options) == []
        shutil.rmtree(options.output_dir)


def test_killed_anywhere_it_ends_with_the_same_bits(make_options: MakeOptions, tmp_path: Path) -> None:
    check_kills(make_options, tmp_path, lambda events: random.Random(1).sample(range(1, events + 1), 6))


@pytest.mark.slow
def test_killed_at_every_sync_rename_and_step(make_options: MakeOptions, tmp_path: Path) -> None:
    check_kills(make_options, tmp_path, lambda events: list(range(1, events + 1)))


def test_killed_again_and_again(make_options: MakeOptions, tmp_path: Path) -> None:
    clean, options = make_options(output_dir=tmp_path / "clean"), make_options(output_dir=tmp_path / "killed")
    train_until(clean, None)
    for kill_at in (30, 41, 17, 29):
        train_until(options, kill_at)
    assert train_until(options, None)[0] == 0
    assert digest(options) == digest(clean)


def stopped_run(options: TrainOptions, at_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, with SIGTERM in the middle of a step."""
    from vicuna.train import loop

    step = loop.Trainer.step

    def step_and_signal(self: Any) -> Any:
        if self.steps_done + 1 == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "step", step_and_signal)
        result = train(options)
    assert result.stopped_by == signal.SIGTERM
    assert result.model is None


def test_a_stop_signal_saves_after_the_step_and_the_run_goes_on_from_there(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = make_options(output_dir=tmp_path / "clean", save_steps=0)
    train(clean)
    options = make_options(output_dir=tmp_path / "stopped", save_steps=0)
    handler = signal.getsignal(signal.SIGTERM)
    stopped_run(options, 3, monkeypatch)
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
    stopped_run(options, 3, monkeypatch)
    train(options)
    assert steps_logged(options, "eval_loss") == [0, 2, 4, 6]


def test_a_stop_during_the_last_evaluation_loses_nothing(
    make_options: MakeOptions, tmp_path: Path, records_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vicuna.train import loop

    clean = make_options(output_dir=tmp_path / "clean", save_steps=0)
    train(clean)
    options = make_options(eval_data=(records_file,), save_steps=0)
    evaluate = loop.evaluate

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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_exit_codes_of_the_real_command(make_options: MakeOptions, number: signal.Signals, code: int) -> None:
    options = make_options(max_steps=100_000, save_steps=0)
    command = [sys.executable, "-m", "vicuna.train", "--model", options.model, "--data", options.data[0]]
    command += ["--output-dir", options.output_dir, "--max-steps", "100000", "--save-steps", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = options.output_dir / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert f"stopped by {number.name}; the same command goes on from" in error
    assert "Traceback" not in error
    assert len(whole_checkpoints(options.output_dir)) == 1


def test_old_checkpoints_are_deleted(make_options: MakeOptions) -> None:
    options = make_options(max_steps=9, save_total_limit=3)
    train(options)
    assert [path.name[-1] for path in whole_checkpoints(options.output_dir)] == ["4", "6", "8"]


@pytest.mark.parametrize("damage", ["no mark", "cut file", "missing file", "garbled mark", "another bit"])
def test_a_broken_checkpoint_is_passed_over(
    make_options: MakeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    train(clean)
    options = make_options(output_dir=tmp_path / "broken")
    stopped_run(options, 5, monkeypatch)
    newest = whole_checkpoints(options.output_dir)[-1]
    if damage == "no mark":
        (newest / "COMPLETE").unlink()
    elif damage == "garbled mark":
        (newest / "COMPLETE").write_text("[")
    elif damage == "missing file":
        (newest / "optimizer-0-of-1.safetensors").unlink()
    elif damage == "cut file":
        os.truncate(newest / "model-0-of-1.safetensors", 1000)
    else:
        flip_a_bit(newest / "model-0-of-1.safetensors")
    assert (newest in whole_checkpoints(options.output_dir)) == (damage == "another bit")
    train(options)
    assert f"{newest} is passed over" in capsys.readouterr().err
    assert digest(options) == digest(clean)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_a_full_disk_keeps_the_old_checkpoint_and_the_run_goes_on(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state = saver.write_state

    def full_after_the_first(folder: Path, *arguments: Any) -> Any:
        marks = write_state(folder, *arguments)
        if "step-00000004" in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return marks

    monkeypatch.setattr(saver, "write_state", full_after_the_first)
    options = make_options()
    assert train(options).model is not None
    error = capsys.readouterr().err
    assert "step-00000004 could not be saved" in error
    assert "step-00000002 is still whole" in error
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000002"]
    assert leftovers(options) == []


def test_too_little_room_is_seen_before_writing(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path, size_bytes: int, what: str) -> None:
        raise VicunaError(f"{what} needs {size_bytes} bytes")

    monkeypatch.setattr(saver, "ensure_free_space", refuse)
    options = make_options()
    train(options)
    assert "there is none before it" in capsys.readouterr().err
    assert whole_checkpoints(options.output_dir) == []


def test_a_finished_run_is_not_trained_again(make_options: MakeOptions) -> None:
    options = make_options()
    train(options)
    before = (options.output_dir / "model/model.safetensors").stat().st_mtime_ns
    assert train(options).model == options.output_dir / "model"
    assert (options.output_dir / "model/model.safetensors").stat().st_mtime_ns == before


def test_what_does_not_change_the_weights_may_change(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(make_options(), 3, monkeypatch)
    options = make_options(save_steps=1, logging_steps=2, save_total_limit=1)
    assert train(options).model is not None


def test_another_run_is_refused_and_the_difference_named(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe_tokenizer_directory: Path
) -> None:
    stopped_run(make_options(), 3, monkeypatch)
    other_model = save_llama(tmp_path / "other", bpe_tokenizer_directory, seed=1)
    other_data = write_records(tmp_path / "other.jsonl", make_records(5, seed=3))
    for changes, message in (
        ({"learning_rate": 2e-3}, "differs: learning_rate was 0.001, is 0.002; choose another"),
        ({"model": other_model}, "differs: model is another;"),
        ({"data": (other_data,)}, "differs: data is another;"),
        ({"template": "chatml"}, r"differs: template was vicuna_v1\.1, is chatml;"),
        ({"resume": "never"}, "already holds a run; choose another directory, --resume auto, or"),
    ):
        with pytest.raises(VicunaError, match=message):
            train(make_options(**changes))
    assert len(whole_checkpoints(make_options().output_dir)) == 2


def test_overwriting_deletes_only_what_a_run_writes(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options()
    stopped_run(options, 3, monkeypatch)
    (options.output_dir / "notes.txt").write_text("mine")
    train(make_options(overwrite_output_dir=True, learning_rate=2e-3))
    assert (options.output_dir / "notes.txt").read_text() == "mine"
    assert steps_logged(options) == [1, 2, 3, 4, 5, 6]


def test_the_base_is_never_overwritten_by_its_own_result(make_options: MakeOptions) -> None:
    first = make_options()
    train(first)
    with pytest.raises(VicunaError, match="lies in --output-dir, which would be overwritten"):
        train(make_options(model=first.output_dir / "model", overwrite_output_dir=True))
    assert digest(first)


def test_two_runs_cannot_share_a_directory(make_options: MakeOptions) -> None:
    options = make_options()
    run = prepare(options, Ranks())
    with (
        claim_output_directory(options, run.identity),
        pytest.raises(VicunaError, match="is in use by another run"),
    ):
        train(options)
    train(options)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(make_options: MakeOptions, overwrite: bool) -> None:
    options = make_options(overwrite_output_dir=overwrite)
    options.output_dir.mkdir()
    (options.output_dir / "notes.txt").write_text("mine")
    with pytest.raises(VicunaError, match="is not empty and not a training run"):
        train(options)
    assert [path.name for path in options.output_dir.iterdir()] == ["notes.txt"]


def test_a_run_goes_on_with_another_word_on_shared_beginnings(make_options: MakeOptions) -> None:
    """And so does one that was left before there was such an option."""
    options = make_options(share_prefix="off")
    train(options)
    shutil.rmtree(options.output_dir / "model")
    run_file = options.output_dir / RUN
    identity = json.loads(run_file.read_text())
    assert "share_prefix" not in identity
    assert train(replace(options, share_prefix="auto")).model == options.output_dir / "model"
