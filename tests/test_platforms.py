"""On a system that lacks what Linux has, every module is imported and the cleaner works."""

import json
import os
import subprocess
import sys
from pathlib import Path

from architecture import NAMES

LINUX_ONLY = """
import builtins, io, os, signal, time
for module, names in {
    os: ["sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "copy_file_range", "splice",
         "memfd_create", "eventfd", "fdatasync", "pidfd_open", "getrandom", "O_TMPFILE", "O_DIRECT", "O_PATH"],
    signal: ["SIGPWR", "SIGSTKFLT", "SIGPOLL", "SIGRTMIN", "SIGRTMAX"],
    time: ["CLOCK_BOOTTIME", "pthread_getcpuclockid"],
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
open_here, sysconf_here = io.open, os.sysconf
def open_elsewhere(file, *arguments, **options):
    if str(file).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return open_here(file, *arguments, **options)
def sysconf_elsewhere(name):
    if name == "SC_AVPHYS_PAGES":
        raise ValueError("unrecognized configuration name")
    return sysconf_here(name)
io.open = builtins.open = open_elsewhere
os.sysconf = sysconf_elsewhere
"""
WITHOUT_FCNTL = "import sys; sys.modules['fcntl'] = None\n"


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_every_module_is_imported() -> None:
    names = sorted(name for name in NAMES if not name.endswith("__main__"))
    program = "import importlib\n" + "".join(f"importlib.import_module({name!r})\n" for name in names)
    done = run(LINUX_ONLY + program)
    assert done.returncode == 0, done.stderr


def test_conversations_need_no_locks() -> None:
    done = run(WITHOUT_FCNTL + "import vicuna.conversation, vicuna.io.files, vicuna.statistics.intervals")
    assert done.returncode == 0, done.stderr


def test_the_sample_is_cleaned_by_several_processes(tmp_path: Path) -> None:
    program = LINUX_ONLY + "import sys; from vicuna.data.__main__ import main; sys.exit(main(sys.argv[1:]))"
    sample = str(Path(__file__).parent.parent / "data" / "sharegpt_sample.json")
    done = run(program, sample, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["kept"] > 0


def test_windows_is_told() -> None:
    program = "import sys; sys.platform = 'win32'; from vicuna.cli import main; sys.exit(main(['data', '--help']))"
    done = run(program)
    assert done.returncode == 1
    assert done.stderr == "error: vicuna runs on Linux and macOS; on Windows, run it inside WSL\n"
    assert not done.stdout


def test_the_helpers_hide_what_they_say() -> None:
    done = run(LINUX_ONLY + "import os; print(hasattr(os, 'sched_getaffinity'), os.path.exists('/proc/meminfo'))")
    assert done.stdout.split()[0] == "False"
    assert hasattr(os, "sched_getaffinity") or sys.platform != "linux"
