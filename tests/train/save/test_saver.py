"""Checkpoints written while training goes on; disks that are full, buckets that fail once, too little memory."""

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.train.builders import MakeOptions, leftovers, losses
from tests.train.launch import on_ranks
from vicuna.errors import VicunaError
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.save import saver
from vicuna.train.save.checkpoint import damaged_files, whole_checkpoints, write_state


def test_old_checkpoints_are_deleted(make_options: MakeOptions) -> None:
    options = make_options(max_steps=9, save_total_limit=3)
    train(options)
    assert [path.name[-1] for path in whole_checkpoints(options.output_dir)] == ["4", "6", "8"]


def test_a_full_disk_keeps_the_old_checkpoint_and_the_run_goes_on(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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


def names(options: TrainOptions) -> list[str]:
    return [path.name for path in whole_checkpoints(options.output_dir)]


def files_of(path: Path) -> dict[str, str]:
    """The checkpoint's files by hash, without the mark."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir() if file.name != "COMPLETE"
    }


def test_training_goes_on_while_a_checkpoint_is_written(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = make_options(output_dir=tmp_path / "clean", save_in_background=False)
    train(clean)
    steps_seen = threading.Semaphore(0)
    step = loop.Trainer.step
    wrote_in: list[threading.Thread] = []

    def write_after_the_next_step(*arguments: Any) -> Any:
        wrote_in.append(threading.current_thread())
        assert steps_seen.acquire(timeout=60), "no step was taken meanwhile"
        return write_state(*arguments)

    def step_and_tell(self: loop.Trainer) -> Any:
        record = step(self)
        if wrote_in:
            steps_seen.release()
        return record

    monkeypatch.setattr(saver, "write_state", write_after_the_next_step)
    monkeypatch.setattr(loop.Trainer, "step", step_and_tell)
    options = make_options(output_dir=tmp_path / "background")
    train(options)
    assert wrote_in
    assert threading.main_thread() not in wrote_in
    assert names(options) == names(clean) == ["step-00000002", "step-00000004"]
    for ours, theirs in zip(*(whole_checkpoints(o.output_dir) for o in (options, clean)), strict=True):
        assert files_of(ours) == files_of(theirs)  # the state of that step, not of a later one
        assert damaged_files(ours) == []


def test_without_memory_for_a_copy_it_is_written_at_once(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote_in: list[threading.Thread] = []

    def write(*arguments: Any) -> Any:
        wrote_in.append(threading.current_thread())
        return write_state(*arguments)

    monkeypatch.setattr(saver, "write_state", write)
    monkeypatch.setattr(saver, "available_memory_bytes", lambda: 1000)
    options = make_options()
    train(options)
    assert names(options) == ["step-00000002", "step-00000004"]
    assert set(wrote_in) == {threading.main_thread()}


def test_a_bucket_that_fails_once_gets_its_checkpoint(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Path] = []

    def fail_once(folder: Path, *arguments: Any) -> Any:
        calls.append(folder)
        if len(calls) == 1:
            (folder / "model-0-of-1.safetensors").write_bytes(b"half")
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return write_state(folder, *arguments)

    monkeypatch.setattr(saver, "write_state", fail_once)
    monkeypatch.setattr(saver, "RETRY_SECONDS", 0.01)
    options = make_options()
    train(options)
    assert names(options) == ["step-00000002", "step-00000004"]
    assert all(damaged_files(path) == [] for path in whole_checkpoints(options.output_dir))
    assert "trying once more" in capsys.readouterr().err


def test_a_bucket_that_cannot_rename_gets_its_checkpoint(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(source: Any, target: Any, **keywords: Any) -> None:
        if "step-" in Path(target).name:
            raise OSError(errno.ENOSYS, "Function not implemented", str(source))
        rename(source, target, **keywords)

    monkeypatch.setattr(os, "rename", refuse)
    options = make_options()
    train(options)
    assert names(options) == ["step-00000002", "step-00000004"]
    assert all(damaged_files(path) == [] for path in whole_checkpoints(options.output_dir))


def test_one_full_rank_of_two_loses_the_checkpoint_and_nothing_else(
    make_options: MakeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    assert on_ranks(2, lambda _: train(clean)) == [0, 0]
    options = make_options(output_dir=tmp_path / "full")

    def work(rank: int) -> None:
        def full(folder: Path, *arguments: Any) -> Any:
            marks = write_state(folder, *arguments)
            if rank == 1 and "step-00000004" in folder.name:
                raise OSError(errno.ENOSPC, "No space left on device", str(folder))
            return marks

        monkeypatch.setattr(saver, "write_state", full)
        train(options)

    assert on_ranks(2, work) == [0, 0]
    error = capfd.readouterr().err
    assert error.count("step-00000004 could not be saved") == 1
    assert "no space left" in error
    assert "step-00000002 is still whole, and the run goes on" in error
    assert names(options) == ["step-00000002"]
    assert losses(options) == losses(clean)
    assert not list(options.output_dir.rglob(".*.tmp"))


def test_older_checkpoints_make_room_for_a_newer_one(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options(max_steps=9, save_total_limit=4)

    def room_for_two(path: Path, _: int, what: str) -> None:
        if len(list(path.parent.glob("step-*"))) >= 2:
            raise VicunaError(f"{what} needs more")

    monkeypatch.setattr(saver, "ensure_free_space", room_for_two)
    train(options)
    assert names(options) == ["step-00000006", "step-00000008"]
    assert "step-00000002 is deleted for it" in capsys.readouterr().err
