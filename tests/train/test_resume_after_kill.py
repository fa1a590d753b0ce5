"""kill -9 at any moment, while a checkpoint is written too: the run ends with the same weights, bit for bit."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.builders import MakeOptions, digest, leftovers, make_records, steps_logged, write_records
from tests.train.launch import free_port, on_ranks, train_in_child
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions

NUM_KILLS = 20


def train_until_killed(options: TrainOptions, num_ranks: int, kill: tuple[int, int] | None = None) -> list[int]:
    """Train; `kill` is a rank and which of its durable events (a sync, a rename, an update) it does not survive."""

    def work(rank: int) -> None:
        count = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if kill == (rank, count):
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return call

        os.fsync, os.replace, os.rename = counted(os.fsync), counted(os.replace), counted(os.rename)
        train(options)
        (options.output_dir.parent / f"events-{rank}").write_text(str(count))

    return on_ranks(num_ranks, work)


def test_two_ranks_of_which_one_is_killed(
    make_options: MakeOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    train(make_options(output_dir=tmp_path / "first"))  # makes the tokens, which the others find made
    assert train_until_killed(clean, 2) == [0, 0]
    num_events = [int((tmp_path / f"events-{rank}").read_text()) for rank in (0, 1)]
    assert min(num_events) > 15
    draw = random.Random(3)
    for number in range(4):
        options = make_options(output_dir=tmp_path / f"killed-{number}")
        rank = number % 2
        statuses = train_until_killed(options, 2, kill=(rank, draw.randint(1, num_events[rank])))
        assert os.WTERMSIG(statuses[rank]) == signal.SIGKILL
        assert statuses[1 - rank] in (1 << 8, signal.SIGKILL, 0)  # in order, or by who started it; or it was done
        error = capfd.readouterr().err
        assert "Traceback" not in error
        if statuses[1 - rank] == 1 << 8:
            assert f"rank {1 - rank} has lost the others" in error
        assert train_until_killed(options, 2) == [0, 0]
        assert digest(options) == digest(clean)
        assert leftovers(options) == []


@pytest.mark.slow
def test_one_process_killed_at_twenty_moments(make_options: MakeOptions, tmp_path: Path) -> None:
    clean = make_options(output_dir=tmp_path / "clean", save_steps=1, max_steps=20)
    started = time.monotonic()
    assert on_ranks(1, lambda _: train(clean)) == [0]
    seconds = time.monotonic() - started
    draw = random.Random(4)
    for number in range(NUM_KILLS):
        options = make_options(output_dir=tmp_path / f"killed-{number}", save_steps=1, max_steps=20)
        delay = draw.uniform(0.1, 0.95) * seconds

        def killed(_: int, options: TrainOptions = options, delay: float = delay) -> None:
            threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
            train(options)

        on_ranks(1, killed)
        assert on_ranks(1, lambda _, options=options: train(options)) == [0]  # type: ignore[misc]
        assert digest(options) == digest(clean)
        assert leftovers(options) == []
        shutil.rmtree(options.output_dir)


@pytest.mark.slow
def test_torchrun_restarts_two_ranks_that_are_killed_twenty_times(
    make_options: MakeOptions, tmp_path: Path, tiny_model: Path
) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(60))
    shape: dict[str, Any] = {"data": (data,), "max_steps": 400, "save_steps": 1, "rows_per_step": 5}
    clean = make_options(output_dir=tmp_path / "clean", **shape)
    assert on_ranks(2, lambda _: train(clean)) == [0, 0]

    out = tmp_path / "killed"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "40"]
    command += [
        *("--master-port", str(free_port()), "--monitor-interval", "0.1"),
        *("-m", "vicuna.train", "--model", str(tiny_model)),
    ]
    command += ["--data", str(data), "--output-dir", str(out), "--max-length", "256", "--learning-rate", "1e-3"]
    command += ["--max-steps", "400", "--save-steps", "1", "--rows-per-step", "5", "--device", "cpu", "--no-bf16"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    draw, killed, last_step = random.Random(5), 0, 0
    while process.poll() is None:
        step = num_steps_logged(out)
        if step <= last_step or killed == NUM_KILLS:
            time.sleep(0.02)
            continue
        time.sleep(draw.uniform(0, 1.0))
        workers = children_of(process.pid)
        if len(workers) == 2:
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
            deadline = time.monotonic() + 60
            # torchrun ends the other one
            while process.poll() is None and set(workers) & set(
                children_of(process.pid)
            ):  # torchrun ends the other one
                assert time.monotonic() < deadline
                time.sleep(0.02)
            last_step = num_steps_logged(out)
    text = (tmp_path / "log").read_text()
    assert process.returncode == 0, text[-3000:]
    assert killed == NUM_KILLS, text[-3000:]
    assert text.count("going on from") >= NUM_KILLS - 2
    assert hashlib.sha256((out / "model/model.safetensors").read_bytes()).hexdigest() == digest(clean)


def num_steps_logged(out: Path) -> int:
    log = out / "train_log.jsonl"
    return log.read_bytes().count(b'"loss"') if log.is_file() else 0


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def check_kills(make_options: MakeOptions, tmp_path: Path, choose: Callable[[int], list[int]]) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    train_in_child(make_options(output_dir=tmp_path / "first"), None)  # makes the tokens, which the others find made
    status, num_events = train_in_child(clean, None)
    assert status == 0
    assert num_events > 50
    for kill_at in choose(num_events):
        options = make_options(output_dir=tmp_path / f"killed-{kill_at}")
        status, _ = train_in_child(options, kill_at)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert not (options.output_dir / "model").exists() or kill_at > num_events - 5
        assert train_in_child(options, None)[0] == 0
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
    train_in_child(clean, None)
    for kill_at in (30, 41, 17, 29):
        train_in_child(options, kill_at)
    assert train_in_child(options, None)[0] == 0
    assert digest(options) == digest(clean)
