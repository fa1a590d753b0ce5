"""What pyproject.toml promises: a name of its own, extras that messages may name, systems that are tested."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from vicuna.errors import DISTRIBUTION, VicunaError, install_command, require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def package_name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found[0]


def test_the_distribution_has_a_name_of_its_own() -> None:
    assert PROJECT["name"] == DISTRIBUTION != "vicuna"
    assert PROJECT["scripts"] == {"vicuna": "vicuna.cli:main"}
    own = [name for extra in EXTRAS.values() for name in extra if name.startswith("vicuna")]
    assert own and all(name.startswith(f"{DISTRIBUTION}[") for name in own)


def test_nobody_is_told_to_install_a_stranger_s_code() -> None:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    wrong = re.compile(rf"(?<![\w-])vicuna\[({'|'.join(EXTRAS)})[\],]|pip install (?:-\S+ )*['\"]?vicuna(?![-\w/.])")
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".sh", ".toml", ".yaml", ".yml", "") and path.is_file():
            assert not wrong.search(path.read_text("utf-8", "replace")), name


def test_every_extra_that_a_message_names_exists() -> None:
    named = set()
    for path in (ROOT / "vicuna").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"require": 1, "install_command": 0}.get(node.func.id)
                if place is not None and isinstance(argument := node.args[place], ast.Constant):
                    named.add(argument.value)
    assert named and named <= EXTRAS.keys()


def test_a_missing_module_names_the_command() -> None:
    with pytest.raises(VicunaError, match=re.escape("pip install 'vicuna-kit[web]'")):
        require("no_such_module_here", "web")
    assert install_command("data") == "pip install 'vicuna-kit[data]'"


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_no_package_stands_twice(extra: str | None) -> None:
    names = [package_name(name) for name in (PROJECT["dependencies"] if extra is None else EXTRAS[extra])]
    assert len(names) == len(set(names))


def test_systems_are_stated() -> None:
    systems = {name.removeprefix("Operating System :: ") for name in PROJECT["classifiers"] if "Operating" in name}
    assert systems == {"MacOS", "POSIX :: Linux"}
    assert PROJECT["urls"]
