#!/usr/bin/env python3
"""Writes docs/limits.md: every limit in the code, with its value, from the constants that hold them.

    .venv/bin/python scripts/limits.py            write the page
    .venv/bin/python scripts/limits.py --check    exit code 1 if the page is not what the code says

A limit is a module's constant whose name begins with MAX_ or LARGEST_. What it is of is the comment at the end of its
line, above it, or the string below it; without one, its name in words.
"""

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vicuna"
PAGE = ROOT / "docs" / "limits.md"
NAME = re.compile(r"(?:MAX|LARGEST)_(?P<rest>[A-Z0-9_]+)")
HEAD = """# Limits

<!-- Written by scripts/limits.py from the code's constants: run it, do not edit this. -->

What a stranger sends (a file, a model's folder, a request, a reply) costs time and memory in proportion to its size,
and no more than these limits allow. Where one is met, the message names it and the value that was found, or the record
is set aside and counted; the next file, record or request is served. Limits that are options stand in each command's
`--help`.

"""


@dataclass(frozen=True)
class Limit:
    """One constant.

    Attributes:
        path: of its module, from the repository's root.
    """

    name: str
    value: Any
    path: str
    meaning: str


def limits() -> Iterator[Limit]:
    """All of them, in the order of the files."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        if not NAME.search(text):
            continue
        body = ast.parse(text).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            for name in _names(node):
                place = path.relative_to(ROOT)
                module = importlib.import_module(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
                yield Limit(name, getattr(module, name), str(place), _meaning(name, node, after, text.splitlines()))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return []
    return [target.id for target in targets if isinstance(target, ast.Name) and NAME.fullmatch(target.id)]


def _meaning(name: str, node: ast.stmt, after: ast.stmt | None, lines: list[str]) -> str:
    """What the constant is a limit of, in the words that stand beside it."""
    _, found, comment = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")
    words = comment if found else ""
    if not words and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        words = " ".join(str(after.value.value).split())
    place = node.lineno - 2
    while not words and place >= 0 and lines[place].startswith("# "):
        above = [lines[place][2:]]
        while place and lines[place - 1].startswith("# "):
            place -= 1
            above.insert(0, lines[place][2:])
        words = " ".join(above)
    match = NAME.fullmatch(name)
    assert match is not None
    return words or match["rest"].replace("_", " ").lower()


def shown(value: Any, name: str) -> str:
    """A value as a person reads it: 4 MiB, 200,000."""
    if isinstance(value, tuple):
        return ", ".join(shown(part, name) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part, name)}" for key, part in value.items())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value}"
    if name.endswith("BYTES") and isinstance(value, int):
        for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value >= 1 << power and value % (1 << power) == 0:
                return f"{value >> power:,} {unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def page() -> str:
    """The page's text: a table for each part of the package."""
    rooms: dict[str, list[Limit]] = {}
    for limit in limits():
        rooms.setdefault(limit.path.split("/")[1].removesuffix(".py"), []).append(limit)
    parts = [HEAD]
    for room, found in rooms.items():
        parts.append(f"## {room}\n\n| limit | value | of what | where |\n| --- | --- | --- | --- |\n")
        for one in found:
            meaning = one.meaning.replace("|", "\\|")
            parts.append(f"| `{one.name}` | {shown(one.value, one.name)} | {meaning} | [{one.path}](../{one.path}) |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is out of date")
    options = parser.parse_args()
    text = page()
    if options.check:
        if PAGE.is_file() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not what the code says; run scripts/limits.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]
    sys.exit(main())
