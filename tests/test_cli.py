"""The command `vicuna`: its verbs, and how long it takes to say hello."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from vicuna import __version__
from vicuna.cli import VERBS, main


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vicuna {__version__}\n"
    assert main([]) == 2


def test_help_with_a_verb_is_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "template"]) == 0
    assert capsys.readouterr().out.startswith("usage: vicuna template")
    assert main(["help", "trian"]) == 2


def test_ctrl_c_while_the_first_modules_load(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def find_spec(self, *_: object) -> None:
            raise KeyboardInterrupt

    loaded = sys.modules.pop("vicuna.options")
    sys.meta_path.insert(0, Interrupted())
    try:
        assert main(["--help"]) == 130
    finally:
        sys.meta_path.pop(0)
        sys.modules["vicuna.options"] = loaded
    assert capsys.readouterr().err == "interrupted\n"


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_module_with_a_main(verb: str) -> None:
    specification = importlib.util.find_spec(VERBS[verb][0])
    assert specification is not None
    assert specification.origin is not None
    tree = ast.parse(Path(specification.origin).read_text("utf-8"))
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_of_every_verb(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vicuna", *([verb] if verb else []), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "Traceback" not in done.stderr
