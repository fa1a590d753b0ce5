import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.io.locks import lock_descriptor, lock_file

HOLD = """
import sys
from pathlib import Path
from vicuna.io.locks import lock_file
with lock_file(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_kept_out_until_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), lock_file(path, wait=False):
            pass
        holder.kill()
        with lock_file(path, wait=True) as is_locked:
            assert is_locked


def test_what_the_file_holds_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("somebody's words")
    with lock_file(path, wait=False):
        pass
    assert path.read_text() == "somebody's words"


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("somebody's words")
    (tmp_path / "lock").symlink_to("target")
    with pytest.raises(VicunaError, match="is a link"), lock_file(tmp_path / "lock", wait=False):
        pass
    assert (tmp_path / "target").read_text() == "somebody's words"


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not lock_descriptor(descriptor, wait=False)
    finally:
        os.close(descriptor)
