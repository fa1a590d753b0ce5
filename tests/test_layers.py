"""Imports point down only, never sideways, and the light commands stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from architecture import FILES, NAMES, PACKAGE, imported, name_of

MAX_MODULES = 14  # in a folder, besides `__init__`
MAX_LINES = 400  # in a file

# Floors from the ground up, for the package and for each of its folders that has folders. A name is a folder or a
# module. What stands on one floor does not import its neighbours; the modules of a folder import each other freely, so
# long as it is in no circle. "*" stands for all modules of the folder that are named nowhere else.
FLOORS: dict[str, list[set[str]]] = {
    "": [
        {"errors"},
        {"io"},
        {"options", "material", "report_page"},
        {"conversation", "statistics"},
        {"weights"},
        {"data"},
        {"train", "serve", "eval"},
        {"bot"},
        {"apply_delta", "demo", "export", "import_gguf", "make_delta", "template"},
        {"cli"},
        {"__main__"},
    ],
    "weights": [{"files"}, {"delta"}, {"tools"}, {"gguf"}, {"*"}, {"__main__"}],
    "weights/gguf": [
        {"names", "types"},
        {"container"},
        {"config"},
        {"config_from_gguf", "config_to_gguf"},
        {"vocabulary"},
        {"*"},
    ],
    "data": [{"options", "step_kinds"}, {"html", "privacy", "read"}, {"steps"}, {"pipeline"}, {"run"}, {"look"}, {"*"}],
    "train": [
        {"options", "ranks", "signals"},
        {"batches"},
        {"model"},
        {"optim", "watch"},
        {"save"},
        {"prepare"},
        {"planner"},
        {"loop"},
        {"__main__"},
    ],
    "serve": [
        {"errors", "auth", "processes", "sampling"},
        {"door"},
        {"http_server"},
        {"engines", "client", "fleet"},
        {"api", "web", "terminal", "prompts"},
        {"controller", "worker", "chat"},
        {"__main__"},
    ],
    "eval": [
        {"rows", "quoting"},
        {"questions", "wording"},
        {"verdict"},
        {"ask"},
        {"answer"},
        {"judging"},
        {"reporting"},
        {"__main__"},
    ],
    "bot": [{"*"}, {"demo"}],
}
FOLDERS = sorted({path.parent for path in FILES})


def floor(folder: str, name: str) -> int:
    """The floor of a module or folder called `name` in `folder`."""
    for number, names in enumerate(FLOORS[folder]):
        if name in names:
            return number
    others = [number for number, names in enumerate(FLOORS[folder]) if "*" in names]
    assert others, f"{name} is on no floor of {folder or 'vicuna'}"
    return others[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = name_of(path).split(".")[1:]
    for target in imported(path):
        other = target.split(".")[1:]
        if not own or not other:  # the package itself: its version
            continue
        common = 0
        while own[common : common + 1] == other[common : common + 1] != []:
            common += 1
        folder = "/".join(own[:common])
        if folder not in FLOORS or len(other) == common:
            continue  # neighbours in a folder without floors; a face that its own module reads
        if len(own) == common:
            continue  # a face that names what its folder holds
        mine, its = floor(folder, own[common]), floor(folder, other[common])
        beside = mine == its and "*" in FLOORS[folder][mine] and (PACKAGE / folder / f"{own[common]}.py").exists()
        assert its < mine or beside, f"{'.'.join(own)} imports {'.'.join(other)}, which is not below it"


def test_every_folder_with_folders_has_floors() -> None:
    nested = {str(path.parent.relative_to(PACKAGE)).removeprefix(".") for path in FOLDERS if path != PACKAGE}
    assert nested == set(FLOORS)


def test_no_cycles() -> None:
    edges = {name: imported(path) - {name} for name, path in NAMES.items() if path.name != "__init__.py"}
    edges = {name: targets & edges.keys() for name, targets in edges.items()}
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    assert not edges, f"these modules import each other in a circle: {sorted(edges)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_can_be_taken_in(folder: Path) -> None:
    assert (folder / "__init__.py").exists()
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES, f"{folder.name} has {len(modules)} modules"
    too_long = {path.name for path in folder.glob("*.py") if path.read_text("utf-8").count("\n") > MAX_LINES}
    assert not too_long


ENTRY = re.compile(r"^- `(\w+)`: ", re.MULTILINE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_face_names_all_that_its_folder_holds(folder: Path) -> None:
    face = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    held = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    named = ENTRY.findall(face)
    assert len(named) == len(set(named))
    assert set(named) == held - {"__init__", "__main__"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_face_holds_no_code(folder: Path) -> None:
    body = ast.parse((folder / "__init__.py").read_text("utf-8")).body
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in body)
    names = {
        target.id
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert names <= {"__all__", "__version__"}


@pytest.mark.parametrize(
    "statement",
    ["import vicuna.conversation", "import vicuna.cli; vicuna.cli.main(['--help'])", "import vicuna.eval.__main__"],
)
def test_light_commands_load_no_heavy_package(statement: str) -> None:
    check = f"import sys; {statement}; print([m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
