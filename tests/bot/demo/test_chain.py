"""Signals while a command of the chain runs, and folders that are no demo's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vicuna.bot.demo.__main__ import claim
from vicuna.errors import VicunaError

# A command that, told to end, has something to save first, as training does.
CHILD = (
    "import signal, sys, time; from pathlib import Path\n"
    "def save(number, _): time.sleep(0.6); Path(sys.argv[1], 'saved').write_text(str(number)); sys.exit(128 + number)\n"
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
    deadline = time.monotonic() + 30
    while not ((folder / "pid").exists() and (folder / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return parent, int((folder / "pid").read_text())


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
    for number in numbers:
        os.killpg(parent.pid, number)
        time.sleep(0.2)
    parent.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"peak_bytes": "many"}'])
def test_a_note_that_no_demo_wrote(tmp_path: Path, note: str) -> None:
    (tmp_path / "vicuna_demo.json").write_text(note)
    with pytest.raises(VicunaError, match=r"vicuna_demo\.json"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vicuna_demo.json"]
