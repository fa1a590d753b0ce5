"""The chain: its stages, and signals while one of its commands runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vicuna.bot.demo.chain import Chain
from vicuna.bot.stages import Workspace

# A command that, told to end, has something to save first, as training does.
CHILD = (
    "import signal, sys, time; from pathlib import Path\n"
    "def save(number, _):\n"
    "    Path(sys.argv[1], 'saving').touch(); time.sleep(0.6)\n"
    "    Path(sys.argv[1], 'saved').write_text(str(number)); sys.exit(128 + number)\n"
    "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, save)\n"
    "Path(sys.argv[1], 'pid').write_text(str(__import__('os').getpid())); time.sleep(60)"
)
PARENT = (
    "import os, sys; from vicuna.bot.demo.chain import wait_for; from vicuna.options import command\n"
    "from vicuna.serve import processes\n"
    "@command\n"
    "def main(argv): return wait_for(processes.spawn([sys.executable, '-c', sys.argv[1], sys.argv[2]], os.environ))\n"
    "sys.exit(main(None))"
)


def started(folder: Path) -> tuple["subprocess.Popen[str]", int]:
    """The demo's part in its own process group, and the command under it."""
    command = [sys.executable, "-c", PARENT, CHILD, str(folder)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text() != "")
    return parent, int((folder / "pid").read_text())


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_may_save_before_the_demo_ends(tmp_path: Path, number: signal.Signals, code: int) -> None:
    parent, _ = started(tmp_path)
    os.killpg(parent.pid, number)
    assert "Traceback" not in parent.communicate(timeout=30)[1]
    assert parent.returncode == code
    assert (tmp_path / "saved").read_text() == str(int(number))


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("numbers", [(signal.SIGKILL,), (signal.SIGINT, signal.SIGINT)])
def test_no_command_outlives_the_demo(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    parent, child = started(tmp_path)
    os.killpg(parent.pid, numbers[0])
    for number in numbers[1:]:  # while the command saves
        wait_until((tmp_path / "saving").exists)
        os.killpg(parent.pid, number)
    parent.communicate(timeout=30)
    wait_until(lambda: not Path(f"/proc/{child}").exists())


def test_there_are_as_many_stages_as_announced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    chain = Chain(workspace, judge=None)
    names = []
    for stage in chain.stages():
        names.append(stage.name)
        figures = {"path": str(tmp_path)} if stage.name == "model" else {}
        workspace.done[stage.name] = type("Made", (), {"figures": figures})()
    assert len(names) == len(set(names)) == Chain.num_stages
