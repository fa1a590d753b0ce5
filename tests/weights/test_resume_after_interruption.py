"""Interrupted work: nothing passes for complete, and the same command resumes."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.weights.builders import files_of, model_files, numbers, tuned, wait_until, write_model
from vicuna.errors import VicunaError
from vicuna.io.log import Progress
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import make_delta
from vicuna.weights.delta.published import apply_published
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.unfinished import JOURNAL_NAME, unfinished_path
from vicuna.weights.tools.cast import cast_model


def test_a_kill_leaves_no_model(tmp_path: Path) -> None:
    """kill -9 after one, two and more tensors of apply: the target folder never exists unless it is complete."""
    shapes: dict[str, tuple[int, ...]] = {f"model.layers.{i}.weight": (1024, 1024) for i in range(8)}
    shapes["model.norm.weight"] = (16,)
    write_model(tmp_path / "base", numbers(0, shapes))
    target = write_model(tmp_path / "target", tuned(numbers(0, shapes)))
    make_delta(tmp_path / "base", target, tmp_path / "exact")
    num_killed = 0
    for num_tensors in range(6):
        out = tmp_path / f"out{num_tensors}"
        num_killed += is_killed_after(num_tensors, command(tmp_path, out), out)
        assert not out.exists() or model_files(out) == model_files(target)
    assert num_killed


def is_killed_after(num_tensors: int, command: list[str], out: Path) -> bool:
    """Run a command that writes `out`, and kill it after so many tensors. Returns whether it was not faster."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: process.poll() is not None or num_written(out) >= num_tensors)
    process.kill()
    return process.wait() == -signal.SIGKILL


def num_written(out: Path) -> int:
    """The tensors that an unfinished run has noted; -1 before it has begun."""
    try:
        return len((unfinished_path(out) / JOURNAL_NAME).read_bytes().splitlines())
    except FileNotFoundError:
        return -1


SHAPES = {f"model.layers.{i}.weight": (40, 60) for i in range(12)} | {"model.norm.weight": (16,)}


SHARD = 20_000  # bytes: four tensors to a file


Job = Callable[[Path, Path], Any]  # from a folder with base, target and deltas, into the folder named second


JOBS: dict[str, Job] = {
    "make exact": lambda at, out: make_delta(at / "base", at / "target", out),
    "make additive": lambda at, out: make_delta(at / "base", at / "target", out, format="additive"),
    "apply exact": lambda at, out: apply_delta(at / "base", at / "exact", out),
    "apply additive": lambda at, out: apply_delta(at / "base", at / "additive", out),
    "apply published": lambda at, out: apply_published(at / "base", at / "additive", out),
    "cast": lambda at, out: cast_model(at / "target", out, dtype="bfloat16", max_shard_bytes=SHARD),
}


@pytest.fixture
def at(tmp_path: Path) -> Path:
    write_model(tmp_path / "base", numbers(0, SHAPES), shard_bytes=SHARD)
    write_model(tmp_path / "target", tuned(numbers(0, SHAPES)), shard_bytes=SHARD)
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "exact")
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "additive", format="additive")
    return tmp_path


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> list[int]:
    """Raise at the `call`-th update of a progress line. The list has one item for each update."""
    calls: list[int] = []

    def update(self: Progress, n: float = 1, **_: object) -> None:
        self.count += n
        calls.append(1)
        if len(calls) == call:
            raise error

    monkeypatch.setattr(Progress, "update", update)
    return calls


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError(errno.ENOSPC, "no space")], ids=repr)
def test_what_was_done_stays_and_the_rest_is_done(
    at: Path, job: Job, error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(at, at / "expected")
    for call in (1, 5, 9):
        out = at / f"out{call}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, call, error)
            with pytest.raises(type(error)):
                job(at, out)
        assert not out.exists()
        work = unfinished_path(out)
        assert len((work / JOURNAL_NAME).read_text().splitlines()) == call - 1
        with pytest.raises(VicunaError):
            CheckpointReader(work)  # what is there does not pass for a model
        assert f"what is done is kept in {work}" in capsys.readouterr().err
        job(at, out)
        said = capsys.readouterr().err
        assert (f"going on where an earlier run stopped: {call - 1} tensors" in said) == (call > 1)
        assert files_of(out) == files_of(at / "expected")
        assert not work.exists()


def test_what_was_damaged_meanwhile_is_made_again(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            JOBS["apply exact"](at, at / "out")
    file = next(unfinished_path(at / "out").glob("model-00001-of-*"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(bytes(data))
    JOBS["apply exact"](at, at / "out")
    JOBS["apply exact"](at, at / "expected")
    assert files_of(at / "out") == files_of(at / "expected")


@pytest.mark.parametrize("job", ["make exact", "apply exact"])
def test_other_inputs_begin_afresh(
    at: Path, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            JOBS[job](at, at / "out")
    capsys.readouterr()
    os.utime(next((at / "base").glob("*.safetensors")))
    JOBS[job](at, at / "out")
    assert "going on" not in capsys.readouterr().err


def test_a_run_can_be_begun_afresh(
    at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            JOBS["apply exact"](at, at / "out")
    capsys.readouterr()
    apply_delta(at / "base", at / "exact", at / "out", resume=False)
    assert "going on" not in capsys.readouterr().err


def command(at: Path, out: Path, verb: str = "apply_delta") -> list[str]:
    flags = ["--base", str(at / "base"), "--delta", str(at / "exact"), "--target", str(out)]
    if verb == "make_delta":
        flags = ["--base", str(at / "base"), "--target", str(at / "target"), "--delta", str(out)]
    return [sys.executable, "-m", f"vicuna.{verb}", *flags]


def test_a_file_that_may_not_grow(at: Path) -> None:
    """A limit on the size of files stops a write in the middle, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))

    done = subprocess.run(command(at, at / "out"), preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {at / 'out'}: it would be larger than a file may be")
    assert not (at / "out").exists()
    assert subprocess.run(command(at, at / "out"), capture_output=True).returncode == 0
    assert {name: data for name, data in files_of(at / "out").items() if name.startswith("model")} == {
        name: data for name, data in files_of(at / "target").items() if name.startswith("model")
    }


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk(at: Path) -> None:
    disk = at / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        (disk / "ballast").write_bytes(bytes(60_000))
        done = subprocess.run(command(at, disk / "out"), capture_output=True, text=True)
        assert done.returncode == 1 and "MiB free; free some or choose another disk" in done.stderr, done.stderr
        assert [path.name for path in disk.iterdir()] == ["ballast"]
        # The same while the work is going on already.
        code = (
            "import sys, vicuna.apply_delta, vicuna.weights.delta.apply as apply\n"
            "apply.ensure_free_space = lambda *_: None\n"
            "sys.exit(vicuna.apply_delta.main())"
        )
        blind = [sys.executable, "-c", code, *command(at, disk / "out")[3:]]
        done = subprocess.run(blind, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            f"error: {disk / 'out'}: no space left on its disk; free some or choose another disk"
        )
        assert not (disk / "out").exists()
        (disk / "ballast").unlink()
        done = subprocess.run(blind, capture_output=True, text=True)
        assert done.returncode == 0 and "going on where" in done.stderr, done.stderr
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["make_delta", "apply_delta"])
def test_kill_at_fifty_random_moments(tmp_path: Path, verb: str) -> None:
    """kill -9, again and again, into one run: it ends with the right bytes, and nothing ever passed for whole."""
    shapes = {f"model.layers.{i}.weight": (1024, 2048) for i in range(24)} | {"model.norm.weight": (16,)}
    write_model(tmp_path / "base", numbers(0, shapes), shard_bytes=20 << 20)
    write_model(tmp_path / "target", tuned(numbers(0, shapes)), shard_bytes=20 << 20)
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "exact")
    expected = files_of(tmp_path / ("exact" if verb == "make_delta" else "target"))
    moments, kills, finished, journal = random.Random(7), 0, 0, 0
    out = tmp_path / "out"
    started = time.monotonic()
    subprocess.run(command(tmp_path, out, verb), check=True, capture_output=True)
    seconds = time.monotonic() - started
    shutil.rmtree(out)
    while kills < 50:
        process = subprocess.Popen(command(tmp_path, out, verb), stdout=-3, stderr=-3)
        try:
            process.wait(timeout=moments.uniform(0.1, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        work = unfinished_path(out)
        if out.exists():
            found = {name: data for name, data in files_of(out).items() if name in expected}
            assert found == expected
            shutil.rmtree(out)
            finished += 1
        elif work.is_dir():
            with pytest.raises(VicunaError):
                CheckpointReader(work)
            lines = (work / JOURNAL_NAME).read_bytes().splitlines() if (work / JOURNAL_NAME).exists() else []
            journal += bool(lines)
            assert all(json.loads(line)["name"] for line in lines[:-1])
    assert journal, "no kill came between two tensors"
    assert subprocess.run(command(tmp_path, out, verb), capture_output=True).returncode == 0
    assert {name: data for name, data in files_of(out).items() if name in expected} == expected
    print(f"{kills} kills, {journal} of them in the middle; ended {finished} times")
