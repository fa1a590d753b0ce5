"""Options from flags and files, and how errors end a program."""

import errno
import json
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Literal

import pytest

from vicuna.errors import UsageError, VerificationError, VicunaError
from vicuna.options import command, option, parse, save, to_dict


@dataclass(frozen=True)
class Options:
    inputs: tuple[Path, ...] = option(help="input files", positional=True)
    learning_rate: float = option(2e-5, help="peak learning rate", aliases=("--lr",))
    steps: int | None = option(None, help="steps; 100% of the data if not given", minimum=1)
    dtype: Literal["fp16", "bf16"] = option("bf16", help="number type")
    resume: bool = option(True, help="go on where it stopped")
    stop: tuple[str, ...] = option((), help="stop strings")
    ends: tuple[str, ...] = option(("a", "b"), help="ends")


def read(*arguments: str) -> Options:
    return parse(Options, arguments, prog="prog", description="Test.")


def test_defaults() -> None:
    assert read("a", "b") == Options((Path("a"), Path("b")))


def test_dashes_underscores_aliases_and_negation() -> None:
    assert read("a", "--learning_rate", "1").learning_rate == 1.0
    assert read("a", "--learning-rate=1").learning_rate == 1.0
    assert read("a", "--lr", "1").learning_rate == 1.0
    assert read("a", "--no-resume").resume is False
    assert read("a", "--stop", "x", "y").stop == ("x", "y")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "prog: the following arguments are required: INPUTS"),
        (("a", "--steps", "ten"), "invalid int value: 'ten'"),
        (("a", "--dtype", "fp8"), "invalid choice: 'fp8'"),
        (("a", "--steps", "0"), "--steps 0: give 1 or more"),
        (("a", "--learning", "1"), "unrecognized arguments: --learning 1"),
        (("a", "--config", "."), r"--config \.: it is a folder"),
    ],
)
def test_bad_flags(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(*arguments)


def test_help_names_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert "(default: 2e-05)" in text
    assert "ends (default: a b)" in text
    assert "{fp16,bf16}" in text
    assert "100% of the data" in text


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_config_file_below_flags(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"config{suffix}"
    table = {"inputs": ["x"], "learning-rate": 1, "stop": ["a"]}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    path.write_text(json.dumps(table) if suffix == ".json" else lines)
    assert read("y", "--config", str(path)) == Options((Path("y"),), learning_rate=1.0, stop=("a",))


def test_saved_options_are_a_config_file(tmp_path: Path) -> None:
    options = Options((Path("x"),), steps=3, stop=("a", "b"))
    save(options, tmp_path / "options.json")
    assert read("x", "--config", str(tmp_path / "options.json")) == options
    assert to_dict(options)["inputs"] == ["x"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"learning_rat": 1}', "unknown option 'learning_rat'; .* did you mean 'learning_rate'"),
        ('{"steps": "3"}', "steps is '3'; it takes a value of type int"),
        ('{"steps": 0}', "--steps 0: give 1 or more"),
        ('{"dtype": "fp8"}', "dtype is 'fp8'; choose one of fp16, bf16"),
        ('{"stop": "a"}', "stop is 'a'; it takes a list"),
        ("{", "not TOML or JSON"),
        ("[1]", "c.json: holds a list; it takes a table"),
    ],
)
def test_bad_config_file(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "c.json").write_text(table)
    with pytest.raises(UsageError, match=message):
        read("a", "--config", str(tmp_path / "c.json"))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (VicunaError("model x:\nno such"), 1, "error: model x: no such\n"),
        (UsageError("bad flag"), 2, "error: bad flag\n"),
        (VerificationError("tensor y"), 3, "error: tensor y\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "full", "/disk/x"),
            1,
            "error: /disk/x: no space left on its disk; free some or choose ",
        ),
        (
            FileNotFoundError(errno.ENOENT, "gone", "x.json"),
            1,
            "error: x.json: no such file or directory; correct the path\n",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
        raise error

    assert main([]) == code
    text = capsys.readouterr().err
    assert text.startswith(line)
    assert text.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
        raise VicunaError("x")

    assert main(["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_our_own_mistakes_stay_tracebacks() -> None:
    @command
    def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
        raise AssertionError("ours")

    with pytest.raises(AssertionError):
        main([])


@dataclass(frozen=True)
class Grouped:
    base: Path = option(help="where to begin", metavar="DIR")
    names: tuple[str, ...] = option(help="what to call it")
    speed: float = option(1.0, help="how fast", group="speed")
    brake: bool = option(True, help="slow down")
    colour: Literal["red", "blue"] = option("red", help="its colour", group="looks")


def help_of(options_class: type, capsys: pytest.CaptureFixture[str], prog: str = "vicuna make") -> str:
    with pytest.raises(SystemExit):
        parse(options_class, ["--help"], prog=prog, description="Test.")
    return capsys.readouterr().out


def test_a_long_usage_has_a_line_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(Grouped, capsys, "vicuna " + "long " * 18 + "make")
    assert shown.split("\n\n")[0].split("\n        ")[1:] == ["--base DIR", "--names TEXT [TEXT ...]", "[OPTION ...]"]


def test_help_has_groups_and_says_what_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(Grouped, capsys)
    assert shown.startswith("usage: vicuna make --base DIR --names TEXT [TEXT ...] [OPTION ...]\n")
    places = [
        shown.index(text) for text in ("--base", "--names", "\nspeed:", "--speed", "--brake", "\nlooks:", "--col")
    ]
    assert places == sorted(places)
    assert "{red,blue}" in shown


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        ("pytest.__main__", "vicuna make now"),
        ("vicuna.__main__", "python -m vicuna make now"),
        ("vicuna.make.__main__", "python -m vicuna.make now"),
        ("vicuna.made_up.maker", "python -m vicuna.made_up.maker now"),
    ],
)
def test_usage_names_the_command_as_it_was_started(
    module: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(module, None))
    assert f"usage: {shown} --base DIR" in help_of(Grouped, capsys, "vicuna make now")
