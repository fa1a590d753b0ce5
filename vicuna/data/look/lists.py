"""`vicuna data lists [NAME]`: the shipped word lists, to read, or to copy one and edit it."""

from dataclasses import dataclass

from vicuna.data.options import LISTS
from vicuna.data.steps.phrases import LIST_STEPS, shipped_list, shipped_phrases
from vicuna.errors import UsageError, nearest
from vicuna.io.terminal import write_text
from vicuna.options import option, parse

EPILOG = """\
A list is a UTF-8 text file with a phrase on each line; # at the start of a line begins a comment. Letter case, spaces
and the shape of apostrophes do not count; how the phrases are looked for stands at the top of each shipped list.

  vicuna data lists refusals > own.txt     a copy to edit
  vicuna data sharegpt.json --output-dir cleaned/ --refusals own.txt           instead of the shipped list
  vicuna data sharegpt.json --output-dir cleaned/ --refusals shipped own.txt   the shipped one and yours
  vicuna data sharegpt.json --output-dir cleaned/ --leftovers none             an empty list"""


@dataclass(frozen=True)
class ListsOptions:
    """`vicuna data lists` options."""

    name: str | None = option(
        None, help="print the file of this list; without a name, which lists there are", positional=True, metavar="NAME"
    )


def main(argv: list[str]) -> int:
    """Print a list, or a line about each, on stdout."""
    options = parse(
        ListsOptions,
        argv,
        prog="vicuna data lists",
        description="Show the word lists that the cleaning goes by.",
        epilog=EPILOG,
    )
    if options.name is None:
        write_text(table())
        return 0
    name = options.name.removesuffix(".txt").replace("-", "_")
    if name not in LIST_STEPS:
        raise UsageError(f"no list is named '{options.name}'; {nearest(name, LIST_STEPS)}")
    write_text(shipped_list(name).read_text("utf-8"), end="")
    return 0


def table() -> str:
    """For each list: its number of phrases, the step that uses it, and the flag that replaces it."""
    rows = [("list", "phrases", "step", "flag")]
    rows += [
        (name, str(len(shipped_phrases(name))), step, "--" + name.replace("_", "-"))
        for name, step in LIST_STEPS.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"They lie in {LISTS}"])
