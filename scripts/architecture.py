#!/usr/bin/env python3
"""Writes docs/architecture.md from the code's own imports and docstrings: floors, folders, and who imports whom.

    .venv/bin/python scripts/architecture.py            write the page
    .venv/bin/python scripts/architecture.py --check    exit code 1 if the page is not what the code says

A floor is one more than the highest floor that is imported from, so nothing is kept up by hand.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vicuna"
PAGE = ROOT / "docs" / "architecture.md"
NOT_SHOWN = {"__init__", "__main__"}  # a face, and the program behind `python -m`


def name_of(path: Path) -> str:
    """The dotted name of a file: `vicuna/data/html/dom.py` is `vicuna.data.html.dom`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "material" not in path.parts)
NAMES = {name_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of `vicuna` that a file imports, anywhere in it, by their dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in NAMES else str(node.module))
    return found & NAMES.keys()


def parts_of(folder: str) -> dict[str, set[str]]:
    """The modules and folders of a folder, each with those of its neighbours that it imports from.

    Args:
        folder: its dotted name; the imports of a folder are those of all its modules.
    """
    depth = folder.count(".") + 1
    arrows: dict[str, set[str]] = {}
    for name, path in NAMES.items():
        words = name.split(".")
        if not name.startswith(f"{folder}.") or words[depth] in NOT_SHOWN:
            continue
        targets = {target.split(".")[depth] for target in imported(path) if target.startswith(f"{folder}.")}
        arrows.setdefault(words[depth], set()).update(targets - {words[depth], *NOT_SHOWN})
    return arrows


def floors(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The parts by floor, the lowest first.

    Raises:
        ValueError: some import each other in a circle.
    """
    left, rows = dict(arrows), []
    while left:
        row = sorted(name for name, targets in left.items() if not targets & left.keys())
        if not row:
            raise ValueError(f"these import each other in a circle: {', '.join(sorted(left))}")
        rows.append(row)
        left = {name: targets for name, targets in left.items() if name not in row}
    return rows


def summary(name: str) -> str:
    """The first sentence of a module's or folder's docstring."""
    text = ast.get_docstring(ast.parse(NAMES[name].read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def diagram(arrows: Mapping[str, set[str]]) -> list[str]:
    """The parts and who imports whom, as a Mermaid graph. An arrow that a longer way tells too is left out."""
    lines = ["```mermaid", "graph TD"]
    lines += [f"    {name}" for name in sorted(arrows)]
    for name in sorted(arrows):
        lines += [f"    {name} --> {target}" for target in sorted(_direct(arrows, name))]
    return [*lines, "```"]


def _direct(arrows: Mapping[str, set[str]], name: str) -> set[str]:
    return arrows[name] - {far for near in arrows[name] for far in _reached(arrows, near)}


def _reached(arrows: Mapping[str, set[str]], name: str) -> set[str]:
    found: set[str] = set()
    waiting = set(arrows[name])
    while waiting:
        found |= waiting
        waiting = {far for near in waiting for far in arrows[near]} - found
    return found


def table(folder: str, order: Iterable[str]) -> list[str]:
    """What each part is, the highest floor first."""
    rows = ["| part | what it is |", "| --- | --- |"]
    for name in order:
        path = NAMES[f"{folder}.{name}"]
        link = path.parent if path.name == "__init__.py" else path
        shown = f"{name}/" if path.name == "__init__.py" else name
        what = re.sub(r"\|", "\\|", summary(f"{folder}.{name}"))
        rows.append(f"| [`{shown}`](../{link.relative_to(ROOT)}) | {what} |")
    return rows


def section(folder: str) -> list[str]:
    """One folder: its face, its graph where it has folders, and its parts from the top down."""
    arrows = parts_of(folder)
    order = [name for row in reversed(floors(arrows)) for name in row]
    title = folder.replace(".", "/")
    lines = [f"## `{title}/`", "", summary(folder), ""]
    if folder == "vicuna" or any(NAMES[f"{folder}.{name}"].name == "__init__.py" for name in arrows):
        lines += [*diagram(arrows), ""]
    return [*lines, *table(folder, order), ""]


def page() -> str:
    """The whole page."""
    folders = sorted(name for name, path in NAMES.items() if path.name == "__init__.py")
    lines = [
        "# Architecture",
        "",
        "<!-- Written by scripts/architecture.py from the code's imports and docstrings: run it, do not edit this. -->",
        "",
        "Imports point down only: what stands higher in a graph imports what stands lower, not the other way round;",
        "no two modules import each other in a circle (`tests/test_layers.py`). Each folder's `__init__.py` names its",
        "modules in the order in which they read best; the tables here go from the top floor down.",
        "",
    ]
    for folder in folders:
        lines += section(folder)
    return "\n".join(lines).rstrip() + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write docs/architecture.md from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what the code says")
    is_check = parser.parse_args(argv).check
    text = page()
    if not is_check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == text:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what the code says; run scripts/architecture.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
