"""A run that was stopped goes on where it was, and its result is that of a run that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.builders import Stop, children_of, digest, recording, run_command
from tests.data.inputs import SMALL_BATCH_BYTES
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.run import engines
from vicuna.data.run.work import work_path


def test_what_is_finished_is_not_done_again(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[int] = []
    monkeypatch.setattr(engines, "clean_batch", recording(cleaned, stop_at=3))
    arguments = [*inputs, "--output-dir", tmp_path / "out", "--workers", 1]
    with pytest.raises(Stop):
        run_command(*arguments)
    assert sorted(path.name for path in work_path(tmp_path / "out").glob("*.part")) == [
        "000000.part",
        "000001.part",
        "000002.part",
    ]
    (work_path(tmp_path / "out") / "000001.part").write_bytes(b"damaged")
    first, cleaned[:] = list(cleaned), []
    monkeypatch.setattr(engines, "clean_batch", recording(cleaned))
    assert run_command(*arguments) == EXIT_SET_ASIDE
    assert first == [0, 1, 2] and cleaned[:2] == [1, 3] and 0 not in cleaned and 2 not in cleaned
    assert run_command(*inputs, "--output-dir", tmp_path / "fresh", "--workers", 1) == EXIT_SET_ASIDE
    assert digest(tmp_path / "out") == digest(tmp_path / "fresh")


def test_other_options_or_other_files_use_nothing_of_it(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run_command(*inputs, "--output-dir", out, "--strict", "--workers", 1) == 1
    parts = len(list(work_path(out).glob("*.part")))
    assert parts > 2
    cleaned: list[int] = []
    monkeypatch.setattr(engines, "clean_batch", recording(cleaned))
    assert run_command(*inputs, "--output-dir", out, "--workers", 1, "--skip", "noise") == EXIT_SET_ASIDE
    assert cleaned[0] == 0
    assert run_command(*inputs, "--output-dir", out, "--strict", "--workers", 1) == 1
    inputs[0].write_bytes(inputs[0].read_bytes() + b"\n")
    cleaned.clear()
    assert run_command(*inputs, "--output-dir", out, "--workers", 1) == EXIT_SET_ASIDE
    assert cleaned[0] == 0


SLOW = """
import sys, time
from vicuna.data import __main__ as program
from vicuna.data.run import batches, engines
program.BATCH_BYTES = batches.BATCH_BYTES = {size}
clean = batches.clean_batch
def slow(one, options):
    time.sleep(0.05)
    return clean(one, options)
batches.clean_batch = engines.clean_batch = slow
if __name__ == "__main__":
    sys.exit(program.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_and_go_on(tmp_path: Path, inputs: list[Path], workers: int) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(size=SMALL_BATCH_BYTES))
    out = tmp_path / "out"
    command = [sys.executable, str(script), *map(str, inputs), "--output-dir", str(out), "--workers", str(workers)]
    assert run_command(*inputs, "--output-dir", tmp_path / "fresh", "--workers", 1) == EXIT_SET_ASIDE
    expected = digest(tmp_path / "fresh")
    kills = 0
    for num_parts in (1, 5, 9):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for_parts(out, process, num_parts)
        if process.poll() is not None:
            continue
        children = children_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        wait_for_end(children)
        if out.exists():  # the kill came after the last rename, so the result is whole
            assert digest(out) == expected
            shutil.rmtree(out)
    assert kills and run_again(command) == EXIT_SET_ASIDE
    assert digest(out) == expected
    assert not work_path(out).exists()


def run_again(command: list[str]) -> int:
    return subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode


def wait_for_parts(out: Path, process: "subprocess.Popen[bytes]", number: int) -> None:
    """Wait until the run has added so many parts to those that were there, or has ended."""

    def count() -> int:
        return len(list(work_path(out).glob("*.part")))

    deadline = time.monotonic() + 60
    wanted = count() + number
    while process.poll() is None and count() < wanted:
        assert time.monotonic() < deadline, "the run makes no parts"
        time.sleep(0.01)


def wait_for_end(children: list[int]) -> None:
    """A worker whose program is gone ends by itself."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() and "Z" not in state(child) for child in children):
        assert time.monotonic() < deadline, "a worker outlives its program"
        time.sleep(0.02)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
