"""The compose file starts programs that exist, with flags they have, and opens nothing but loopback."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parent.parent / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
services = pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"].keys())


@services
def test_flags_exist(service: dict[str, Any]) -> None:
    module = service["entrypoint"][-1]
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    flags = [word for word in service["command"] if word.startswith("--")]
    assert flags
    assert all(flag in done.stdout for flag in flags)


@services
def test_ports_are_on_loopback_and_rights_are_few(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]


def test_the_image_holds_what_the_wheel_is_built_from() -> None:
    lines = (DOCKER / "Dockerfile").read_text("utf-8").splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY")}
    assert {"pyproject.toml", "vicuna", "data", "eval"} <= copied
    ignored = (DOCKER.parent / ".dockerignore").read_text("utf-8").splitlines()
    assert all(f"!{name}" in ignored for name in copied)
