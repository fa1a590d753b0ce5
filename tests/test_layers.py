"""Imports point down only, never sideways, and the light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vicuna"
LAYERS = [
    {"errors"},
    {"files", "streams"},
    {"options", "jsonl", "log", "page", "material"},
    {"conversation"},
    {"data", "weights"},
    {"train", "serve", "eval"},
    {"demo", "apply_delta", "make_delta", "export", "import", "template"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def room(path: Path) -> str:
    """The part of the house a file belongs to: `vicuna/data/html.py` is in `data`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of `vicuna` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("vicuna.") and name.count(".")}
    return {name for name in found if name in LEVEL}


FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py" and "material" not in path.parts[:-1]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = room(path)
    assert own in LEVEL, f"{own} is in no layer"
    wrong = {name for name in imports(path) if name != own and LEVEL[name] >= LEVEL[own]}
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {wrong}, which are not below it"


def modules(path: Path) -> set[str]:
    """The modules of its own room that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"vicuna.{room(path)}"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_cycles_inside_a_room() -> None:
    names = {".".join(("vicuna", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    edges = {name: {other for other in modules(path) if other in names} - {name} for name, path in names.items()}
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    assert not edges, f"these modules import each other in a circle: {sorted(edges)}"


@pytest.mark.parametrize(
    "statement",
    ["import vicuna.conversation", "import vicuna.cli; vicuna.cli.main(['--help'])", "import vicuna.eval.__main__"],
)
def test_light_commands_load_no_heavy_package(statement: str) -> None:
    check = f"import sys; {statement}; print([m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
