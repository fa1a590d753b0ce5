"""`python -m vicuna.demo` is `vicuna demo`."""

import subprocess
import sys


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "vicuna.demo", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m vicuna.demo")
