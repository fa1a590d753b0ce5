"""Children that end when told to, and with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.programs import is_alive
from vicuna.serve import processes

# Writes its own pid once it ignores SIGTERM, and lives on.
STUBBORN = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
)
# Spawns the one above and waits for it.
PARENT = (
    "import os, sys; from vicuna.serve import processes;"
    "processes.spawn([sys.executable, '-c', sys.argv[1], sys.argv[2]], os.environ).wait()"
)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_pid(path: Path) -> bool:
    """Whether a child has written its pid."""
    return path.exists() and path.read_text() != ""


def test_a_child_that_does_not_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    polite = processes.spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    stubborn = processes.spawn([sys.executable, "-c", STUBBORN, str(tmp_path / "pid")], os.environ)
    wait_for(lambda: has_pid(tmp_path / "pid"))
    processes.stop([polite, stubborn], grace_seconds=0.2)
    assert (polite.returncode, stubborn.returncode) == (-signal.SIGTERM, -signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, STUBBORN, str(tmp_path / "pid")])
    wait_for(lambda: has_pid(tmp_path / "pid"))
    child = int((tmp_path / "pid").read_text())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(child))


SECRETS = {
    "OPENAI_API_KEY": "sk-1",
    "HF_TOKEN": "hf_1",
    "HUGGING_FACE_HUB_TOKEN": "hf_2",
    "VICUNA_API_KEY": "k1",
    "VICUNA_JOIN_TOKEN": "j1",
    "VICUNA_JOIN_TOKEN_FILE": "/run/secrets/j",
    "AWS_SECRET_ACCESS_KEY": "a1",
    "DATABASE_URL": "postgres://me:password@host/db",
    "GITHUB_TOKEN": "g1",
    "TORCH_HUB_TOKEN": "t1",
    "PYTHON_KEYRING_PASSWORD": "p1",
    "SSH_AUTH_SOCK": "/tmp/agent",
}
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "1",
    "HF_HOME": "/hub",
    "HTTPS_PROXY": "http://proxy:3128",
    "LC_ALL": "C.UTF-8",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
    "VICUNA_HOME": "/home",
}


def test_a_child_is_given_settings_and_no_secret_but_the_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    given = processes.child_environment()
    assert not set(SECRETS) & set(given) and not set(SECRETS.values()) & set(given.values())
    assert SETTINGS.items() <= given.items() and "PATH" in given
    assert set(SECRETS) & set(processes.child_environment("VICUNA_API_KEY")) == {"VICUNA_API_KEY"}
