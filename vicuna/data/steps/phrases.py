"""The word lists of the cleaning: the shipped ones, in the folder `lists`, and the user's own.

A list is UTF-8 text with a phrase on each line. Empty lines are skipped, and a line that begins with # is a comment (a
space before it makes the # part of a phrase). In every list letter case, runs of spaces and the shape of apostrophes do
not count; how the phrases are looked for is said at the top of each shipped list.

`options` names the lists; `noise` and `answers` make steps of their phrases.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from vicuna.data.options import LISTS, NONE, SHIPPED, DataOptions
from vicuna.errors import UsageError, VicunaError, describe
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import JsonObject

LIST_STEPS = {  # each list, whose name is also that of its option, and the step that uses it
    "refusals": "refusals",
    "refusal_turns": "refusals",
    "blocked": "blocked",
    "error_messages": "errors",
    "leftovers": "noise",
}
LIMIT_OPTIONS = {"refusals": "max_refusal_characters", "error_messages": "max_error_characters"}
MARKS = "*_. "  # a phrase of nothing else would match nothing, or everything


def fold(text: str) -> str:
    """A text as phrases are compared: case, runs of space and the shape of apostrophes aside."""
    return " ".join(text.replace("’", "'").casefold().split())


def fold_all(phrases: Iterable[str]) -> tuple[str, ...]:
    """Phrases as they are compared, each once, in order."""
    return tuple(dict.fromkeys(map(fold, phrases)))


def shipped_list(name: str) -> Path:
    """The file of a shipped list."""
    return LISTS / f"{name}.txt"


def shipped_phrases(name: str) -> tuple[str, ...]:
    """The phrases of a shipped list."""
    return tuple(phrase for _, phrase in _phrases(shipped_list(name).read_text("utf-8")))


def chosen_phrases(name: str, options: DataOptions) -> tuple[str, ...]:
    """The phrases of a list as the options choose it, file after file.

    Raises:
        UsageError: the option's values contradict each other.
        VicunaError: a file cannot be read, holds no phrase, or one that can never be found.
    """
    phrases: list[str] = []
    for _, path in _files(name, options):
        phrases += shipped_phrases(name) if path == shipped_list(name) else _own_phrases(name, path, options)
    return tuple(phrases)


def describe_lists(options: DataOptions) -> dict[str, list[JsonObject]]:
    """For each list its files: names without folders, sizes and hashes.

    Raises:
        UsageError: the option's values contradict each other.
        OSError: a file cannot be read.
    """
    return {
        name: [
            {"name": given, "size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for given, path in _files(name, options)
        ]
        for name in LIST_STEPS
    }


def recorded_name(given: str) -> str:
    """The name of a list's file without its folder, which does not change the result."""
    return given if given in (SHIPPED, NONE) else Path(given).name


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _files(name: str, options: DataOptions) -> list[tuple[str, Path]]:
    """The files that an option names, each with the name that it is recorded under."""
    given: tuple[str, ...] = getattr(options, name)
    if not given:
        raise UsageError(f"{_flag(name)} names no list; give files, the word {SHIPPED}, or {NONE} for an empty list")
    if NONE in given and len(given) > 1:
        others = " ".join(value for value in given if value != NONE)
        raise UsageError(f"{_flag(name)} {NONE} stands alone; leave it out to have the phrases of {others} only")
    return [
        (recorded_name(value), shipped_list(name) if value == SHIPPED else Path(value))
        for value in given
        if value != NONE
    ]


def _own_phrases(name: str, path: Path, options: DataOptions) -> list[str]:
    file = f"{_flag(name)} {path}"
    if path.exists() and not path.is_file():  # a pipe cannot be read twice
        raise VicunaError(f"{file}: a folder or a pipe; give a file, the word {SHIPPED}, or {NONE}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VicunaError(f"{file}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise VicunaError(f"{_flag(name)} {describe(error)} (or give the word {SHIPPED}, or {NONE})") from None
    phrases = []
    for number, phrase in _phrases(text):
        if not phrase.strip(MARKS):
            raise VicunaError(
                f"{file}, line {number}: '{phrase}' holds no word to look for; correct or delete the line"
            )
        if (limit := LIMIT_OPTIONS.get(name)) and len(phrase) > getattr(options, limit):
            raise VicunaError(
                f"{file}, line {number}: a phrase of {len(phrase)} characters is never found, because no text longer "
                f"than {_flag(limit)} {getattr(options, limit)} is looked at; shorten it or raise the number"
            )
        phrases.append(phrase)
    if not phrases:
        raise VicunaError(f"{file}: no phrase in it; write one on a line, or give {NONE} for an empty list")
    return phrases


def _phrases(text: str) -> Iterator[tuple[int, str]]:
    """Each phrase with the number of its line."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, " ".join(line.split())
