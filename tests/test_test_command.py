"""`scripts/test`: which checks run, in which order, what goes to pytest, and what a check that fails says."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "test"
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
test "$(basename "$0") $1" != "$FAILING"
"""
FORMAT, LINT, TYPES = "ruff format --check --quiet .", "ruff check --quiet .", "mypy --no-error-summary"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, and stubs in place of all that it calls."""
    for name in ("scripts/setup", *(f".venv/bin/{tool}" for tool in ("ruff", "mypy", "shellcheck", "python"))):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STUB)
        path.chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "scripts" / "test")
    return tmp_path


def run(checkout: Path, *arguments: str, failing: str = "") -> tuple[int, str, list[str]]:
    """The exit code, stderr, and the commands that were called."""
    done = subprocess.run(
        [checkout / "scripts" / "test", *arguments], env={"FAILING": failing, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr, (checkout / "calls").read_text().splitlines()


def test_everything_runs(checkout: Path) -> None:
    code, said, calls = run(checkout, "-m", "slow")
    assert (code, said) == (0, "")
    assert calls[:4] == ["setup ", FORMAT, LINT, TYPES]
    assert calls[4].startswith("shellcheck -x scripts/setup ")
    assert calls[5:] == ["python -m pytest -m slow"]


def test_fast_leaves_out_types_and_shell_scripts(checkout: Path) -> None:
    code, said, calls = run(checkout, "--fast", "tests/data", "-x")
    assert (code, said) == (0, "")
    assert calls == ["setup ", FORMAT, LINT, "python -m pytest tests/data -x"]


@pytest.mark.parametrize(
    ("failing", "says"),
    [
        ("ruff format", "test: run .venv/bin/ruff format"),
        ("ruff check", "test: run .venv/bin/ruff check --fix"),
        ("mypy --no-error-summary", "test: mend the types"),
        ("shellcheck -x", "test: mend the shell scripts"),
    ],
)
def test_a_check_that_fails_says_what_to_do_and_ends_it(checkout: Path, failing: str, says: str) -> None:
    code, said, calls = run(checkout, failing=failing)
    assert code == 1
    assert said.startswith(says)
    assert calls[-1].startswith(failing)


def test_the_exit_code_is_that_of_pytest(checkout: Path) -> None:
    assert run(checkout, failing="python -m")[0] == 1
