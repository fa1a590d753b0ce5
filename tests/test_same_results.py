"""`scripts/same_results` sees what differs, lets pass what may, and says which commands one tree lacks."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "scripts" / "same_results"
STUB = """
import pathlib, sys
verb, out = sys.argv[1:]
if verb not in {known}:
    sys.exit("error: unknown verb " + verb) if verb == "broken" else sys.exit(2)
pathlib.Path(out, "result.txt").write_text({text!r} if verb == "changed" else verb)
print("took 1.5 s" if {text!r} == "old" else "took 7 s")
"""


@pytest.fixture(scope="module")
def program() -> ModuleType:
    sys.path[:0] = [str(FOLDER)]
    spec = importlib.util.spec_from_file_location("same_results", FOLDER / "__main__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["same_results"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ({"version": "0.1.0", "a": [1, 2]}, {"version": "0.2.0rc1", "a": [1, 2]}, None),
        ({"steps": [{"version": 1}]}, {"steps": [{"version": 2}]}, " .steps[0].version: 1 and 2"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, " : keys are in another order"),
        ({"a": 1}, {"a": 1.0}, " .a: 1 and 1.0"),
        ({"a": 1}, {"a": 1, "b": 2}, " .b is only in AFTER"),
        ([[1, 2]], [[1]], " [0]: 2 and 1 items"),
        ({"loss": 2.5, "tokens_per_second": 10.5}, {"loss": 2.5, "tokens_per_second": 1e-7}, None),
        ('{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n', "line 2 .a: 2 and 3"),
        ('{"a": 1}\n', '{"a": 1}\n{"a": 2}\n', "1 and 2 lines"),
        ('{"a": 1}\n', '{"a":1}\n', 'line 1, character 6: "{\\"a\\": 1}\\n" and "{\\"a\\":1}\\n"'),
        ("text\n", "text", 'line 1, character 5: "text\\n" and "text"'),
        ("by vicuna 0.1.0, took 3 s\npeak memory: 1 MiB\n", "by vicuna 0.2.0, took 4.5 s\npeak memory: 2 MiB\n", None),
        ("one line", "one lint", 'line 1, character 8: "one line" and "one lint"'),
        (b"\xff\x00\x01", b"\xff\x00\x02\x03", "byte 2; 3 and 4 bytes"),
        ("", None, "only in BEFORE"),
    ],
)
def test_first_difference(program: ModuleType, tmp_path: Path, before: object, after: object, difference: str) -> None:
    for name, value in (("before", before), ("after", after)):
        if value is not None:
            text = value if isinstance(value, str | bytes) else json.dumps(value)
            (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    assert program.file_difference(tmp_path / "before", tmp_path / "after") == difference


def test_two_trees(program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = []
    for name, known, text in (
        ("BEFORE", ["steady", "changed", "gone", "renamed"], "old"),
        ("AFTER", ["steady", "changed", "added", "new-name"], "new"),
    ):
        package = tmp_path / name / "tree" / "vicuna"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(STUB.format(known=known, text=text))
        sides.append(program.Side(name, package.parent, tmp_path / name))

    def compare(*names: str) -> tuple[int, list[str]]:
        cases = [program.Case(name, tuple(f"{verb} OUT" for verb in name.split("+"))) for name in names]
        code = program.compare(tuple(sides), cases)
        return code, capsys.readouterr().out.splitlines()[:-1]

    same = ["same     steady result.txt", "same     steady stdout"]
    assert compare("steady") == (0, same)
    assert compare("steady", "added") == (0, [*same, "new      added: BEFORE does not know it ()"])
    assert compare("added")[0] == 1, "nothing was compared"
    assert compare("changed")[1][0] == 'differs  changed result.txt: line 1, character 1: "old" and "new"'
    code, lines = compare("gone")
    assert (code, lines) == (1, ["differs  gone: exit code 0 and 2"])
    code, lines = compare("broken")
    assert code == 1 and lines[0] == "fails    broken: exit code 1 on both sides, nothing was compared"
    assert lines[1:] == [f"         {name}: error: unknown verb broken" for name in ("BEFORE", "AFTER")]
    assert compare("new-name+renamed")[1][0].startswith("differs  new-name+renamed result.txt"), "each by its own name"
