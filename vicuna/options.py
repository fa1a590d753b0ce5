"""One frozen dataclass per program is the only home of a default, a unit and a help text.

Flags, the config file and `--help` are derived from it here. `command` wraps every program's `main`: an error becomes
one line and an exit code (0 ok, 1 failure, 2 usage, 3 verification failed, 130 Ctrl-C, 143 SIGTERM).
"""

import argparse
import dataclasses
import functools
import json
import signal
import sys
import textwrap
import threading
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from vicuna.errors import UsageError, VicunaError, describe, nearest
from vicuna.io import streams, terminal
from vicuna.io.files import atomic_file
from vicuna.io.secrets import Secret, redact

T = TypeVar("T")
Main = Callable[[list[str] | None], int]
USAGE_WIDTH = 100  # a longer usage has a line for each part
METAVARS = {str: "TEXT", int: "N", float: "X", bool: "", Path: "PATH"}
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    choices: Sequence[Any] | None = None,
    aliases: tuple[str, ...] = (),
    positional: bool = False,
    metavar: str | None = None,
    minimum: float | None = None,
    group: str | None = None,
) -> Any:
    """A dataclass field that is also a flag. Without a default the flag must be given.

    Args:
        help: what it does, with its unit.
        aliases: other flag names accepted, with their dashes: `--delta-path`.
        positional: a bare argument instead of a flag.
        minimum: the smallest number that is taken.
        group: the heading in `--help` that this option and those after it stand under, up to the next one; a heading
            may come again.
    """
    metadata = {"help": help, "choices": choices, "aliases": aliases, "positional": positional, "metavar": metavar}
    return dataclasses.field(default=default, metadata={**metadata, "minimum": minimum, "group": group})


def parse(options_class: type[T], argv: Sequence[str] | None, *, prog: str, description: str, epilog: str = "") -> T:
    """Read the options from the command line and, beneath it, from `--config FILE` (TOML or JSON).

    Args:
        prog: the command, as `vicuna VERB ...`; shown as `python -m MODULE ...` if it was started so.

    Raises:
        UsageError: an unknown flag, a value of the wrong type, a required one missing, a bad config file.
        SystemExit: `--help` was asked for.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    fields = {field.name: field for field in dataclasses.fields(options_class)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(options_class)
    prog = _as_started(prog)
    parser = _Parser(
        prog=prog,
        usage=_usage(prog, fields, hints),
        description="\n\n".join(map(_filled, description.split("\n\n"))),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    section: argparse._ActionsContainer = parser
    sections: dict[str, argparse._ActionsContainer] = {}
    for name, field in fields.items():
        if (title := field.metadata["group"]) is not None:
            section = sections.get(title) or sections.setdefault(title, parser.add_argument_group(title))
        _add_argument(parser if field.metadata["positional"] else section, field, hints[name])
    parser.add_argument("--config", metavar="FILE", help="read options from a TOML or JSON file; flags win over it")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = vars(parser.parse_args([_dashed(argument) for argument in arguments]))
    given.pop("debug", None)
    config = given.pop("config", None)
    values = {**(_read_config(config, fields, hints) if config else {}), **given}
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            names = "/".join((_flag(field), *field.metadata["aliases"]))
            raise UsageError(f"{prog}: {names} is required (see {prog} --help)")
        _check_minimum(field, values.get(name))
    return options_class(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def to_dict(options: Any) -> dict[str, Any]:
    """The options as plain JSON values."""
    return {name: _plain(value) for name, value in vars(options).items()}


def save(options: Any, path: Path | str) -> None:
    """Write the options beside a program's output, in the form that `--config` reads."""
    with atomic_file(path) as file:
        file.write(json.dumps(to_dict(options), indent=2) + "\n")  # ASCII: a path may hold what is no UTF-8


def command(main: Callable[..., int]) -> Main:
    """Turn what a program raises into one line on stderr and an exit code; `--debug` adds the traceback."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        streams.prepare()
        terminal.take_over()
        try:
            try:
                with _ended_in_order():
                    status = main(argv)
            except SystemExit as leaving:  # --help, SIGTERM
                status = leaving.code if isinstance(leaving.code, int) else 0
                if status - 128 in END_SIGNALS:
                    terminal.say(f"ended by {signal.Signals(status - 128).name}")
            sys.stdout.flush()  # now, not when Python ends: what goes wrong here can still be told
            return status
        except KeyboardInterrupt:
            streams.finish_stdout()
            terminal.say("interrupted")
            return 130
        except (VicunaError, OSError) as error:
            if not streams.finish_stdout() and isinstance(error, OSError):
                if isinstance(error, BrokenPipeError):  # who read it has enough (`| head`)
                    return 0
                error.filename = error.filename or "stdout"
            if "--debug" in (sys.argv if argv is None else argv):
                terminal.say_traceback(type(error), error, error.__traceback__)
            else:
                terminal.say(f"error: {describe(error)}")
            return error.exit_code if isinstance(error, VicunaError) else 1

    return wrapped


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block by way of its `finally`: nothing unfinished is left behind.

    The second time the signal ends the program at once.
    """

    def end(number: int, _: types.FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    earlier: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in END_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
        earlier = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} --help)")

    def _print_message(self, message: str, _: object = None) -> None:  # --help
        terminal.write_text(message, end="")


def _dashed(argument: str) -> str:
    """`--learning_rate=1` means `--learning-rate=1`."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _flag(field: dataclasses.Field[Any]) -> str:
    return field.name.upper() if field.metadata["positional"] else "--" + field.name.rstrip("_").replace("_", "-")


def _as_started(prog: str) -> str:
    """The command as the user wrote it: `vicuna train`, `python -m vicuna train` or `python -m vicuna.train`."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    module = specification.name.removesuffix(".__main__") if specification is not None else ""
    if module == "vicuna":
        return f"python -m {prog}"
    if module.startswith("vicuna.") and prog.startswith("vicuna "):
        return " ".join(["python -m", module, *prog.split()[2:]])
    return prog


def _usage(prog: str, fields: Mapping[str, dataclasses.Field[Any]], hints: Mapping[str, Any]) -> str:
    """What must be given, and that there is more."""
    required, positional = [], []
    has_options = False
    for name, field in fields.items():
        kind, is_many, choices = _unwrap(hints[name])
        is_required = field.default is dataclasses.MISSING
        value = _metavar(field, kind, field.metadata["choices"] or choices)
        value = f"{value} [{value} ...]" if is_many else value
        if field.metadata["positional"]:
            positional.append(value if is_required else f"[{value}]")
        elif is_required:
            required.append(f"{_flag(field)} {value}")
        has_options = has_options or not (is_required or field.metadata["positional"])
    words = [prog, *positional, *required, *(["[OPTION ...]"] if has_options else [])]
    if len(" ".join(words)) + len("usage: ") <= USAGE_WIDTH:
        return " ".join(words)
    return f"\n{' ' * 8}".join(words)


def _filled(paragraph: str) -> str:
    """A paragraph of one line, broken where a terminal ends; one that has lines already stays."""
    return paragraph if "\n" in paragraph else textwrap.fill(paragraph, USAGE_WIDTH)


def _metavar(field: dataclasses.Field[Any], kind: type, choices: Sequence[Any] | None) -> str:
    """What stands for an option's value in usage and help."""
    if field.metadata["metavar"]:
        return str(field.metadata["metavar"])
    if choices:
        return f"{{{','.join(map(str, choices))}}}"
    return field.name.upper() if field.metadata["positional"] else METAVARS[kind]


def _add_argument(parser: argparse._ActionsContainer, field: dataclasses.Field[Any], hint: Any) -> None:
    metadata, default = field.metadata, field.default
    kind, is_many, choices = _unwrap(hint)
    text = metadata["help"].replace("%", "%%")
    if default is dataclasses.MISSING:
        text += " (required)" if not metadata["positional"] else ""
    elif default is not None and default != () and not isinstance(default, bool):
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += f" (default: {shown})".replace("%", "%%")
    elif isinstance(default, bool) and kind is bool:
        text += f" (default: {'yes' if default else 'no'})"
    keywords: dict[str, Any] = {"help": text}
    if kind is bool:
        keywords["action"] = argparse.BooleanOptionalAction
    else:
        keywords |= {"type": kind, "choices": metadata["choices"] or choices}
        keywords["metavar"] = _metavar(field, kind, keywords["choices"])
        if is_many:
            keywords["nargs"] = "+" if default is dataclasses.MISSING else "*"
            if not metadata["positional"]:
                keywords["action"] = "extend"  # `--model a b` and `--model a --model b` are the same
    if metadata["positional"]:
        if not is_many and default is not dataclasses.MISSING:
            keywords["nargs"] = "?"
        parser.add_argument(field.name, **keywords)
    else:
        parser.add_argument(_flag(field), *metadata["aliases"], dest=field.name, **keywords)


def _check_minimum(field: dataclasses.Field[Any], value: Any) -> None:
    minimum = field.metadata["minimum"]
    if minimum is not None and value is not None and not value >= minimum:  # not a number is not above it either
        raise UsageError(f"{_flag(field)} {value}: give {minimum:g} or more")


def _unwrap(hint: Any) -> tuple[type, bool, Sequence[Any] | None]:
    """The value type of a field, whether it takes many values, and its choices."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    is_many = typing.get_origin(hint) is tuple
    if is_many:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return type(choices[0]), is_many, choices
    return hint, is_many, None


def _plain(value: Any) -> Any:
    if isinstance(value, Path | Secret):
        return str(value)
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _read_config(path: str, fields: dict[str, dataclasses.Field[Any]], hints: dict[str, Any]) -> dict[str, Any]:
    try:
        text = Path(path).read_text("utf-8")
        table = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"--config {describe(error)}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path}: not TOML or JSON ({error})") from None
    if not isinstance(table, dict):
        raise UsageError(f"--config {path}: holds a {type(table).__name__}; it takes a table of options and values")
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if f"{name}_" in fields:  # `in` is a word of Python's, so its field is `in_`
            name += "_"
        if name not in fields:
            raise UsageError(f"--config {path}: unknown option '{key}'; {nearest(name, fields)}")
        values[name] = _convert(value, hints[name], f"--config {path}: {key}")
        choices = fields[name].metadata["choices"] or _unwrap(hints[name])[2]
        if choices and values[name] is not None and values[name] not in choices:
            raise UsageError(f"--config {path}: {key} is {value!r}; choose one of {', '.join(map(str, choices))}")
    return values


def _convert(value: Any, hint: Any, place: str) -> Any:
    kind, is_many, _ = _unwrap(hint)
    if value is None and type(None) in typing.get_args(hint):
        return None
    if is_many:
        if not isinstance(value, list):
            raise UsageError(f"{place} is {value!r}; it takes a list")
        return tuple(_convert(item, kind, place) for item in value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{place} is {value!r}; it takes a value of type {kind.__name__}")
    return value


def run_verb(
    program: str, verbs: Mapping[str, Callable[[list[str]], int]], usage: str, argv: list[str] | None = None
) -> int:
    """Run the verb that the arguments begin with, with the rest of them; without one, print the usage.

    Raises:
        UsageError: there is no such verb.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        terminal.write_text(usage)
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in verbs:
        raise UsageError(f"{program}: unknown verb '{verb}'; {nearest(verb, verbs)}")
    return verbs[verb](rest)
