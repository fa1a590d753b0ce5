"""The demo's steps: done once, skipped when intact, gone on with after a kill, done again when something changed."""

import os
from pathlib import Path

import pytest

from vicuna.bot.demo.__main__ import MARKER, claim, main, note_peak
from vicuna.bot.memory import MemoryWatch
from vicuna.bot.stages import Figures, Step, Workspace, table
from vicuna.errors import VicunaError
from vicuna.io.jsonl import write_json


class Baker:
    """Makes a file and counts how often; can be told to fail half way."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.fails, self.found = folder, 0, False, None

    def bake(self) -> Figures:
        self.count += 1
        path = self.folder / "out" / "bread.txt"
        self.found = path.read_text() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        if self.fails:
            raise KeyboardInterrupt
        path.write_text("whole")
        return {"shown": f"baked {self.count}"}

    def step(self, *inputs: object, is_cheap: bool = False) -> Step:
        return Step("bake", "bake bread", self.bake, inputs, ("out",), is_cheap)


@pytest.fixture
def baker(tmp_path: Path) -> Baker:
    return Baker(tmp_path)


def run(baker: Baker, *inputs: object) -> bool:
    """Run the step in a new workspace, as a new process would; was it skipped?"""
    return Workspace(baker.folder).run(baker.step(*inputs), 1, 1).was_skipped


def test_an_intact_step_is_skipped_with_its_figures(baker: Baker) -> None:
    assert not run(baker, "flour")
    workspace = Workspace(baker.folder)
    assert workspace.run(baker.step("flour"), 1, 1).was_skipped
    assert workspace.figures("bake") == {"shown": "baked 1"}
    assert baker.count == 1


def test_other_inputs_remove_the_old_output_first(baker: Baker, tmp_path: Path) -> None:
    flour = tmp_path / "flour"
    flour.write_text("white")
    run(baker, flour)
    flour.write_text("brown")
    assert not run(baker, flour)
    assert baker.found is None


@pytest.mark.parametrize("damage", ["touch", "delete", "add"])
def test_damaged_output_is_made_again(baker: Baker, damage: str) -> None:
    run(baker)
    path = baker.folder / "out" / "bread.txt"
    if damage == "touch":
        path.write_text("mould")
    elif damage == "delete":
        path.unlink()
    else:
        (baker.folder / "out" / "more").write_text("x")
    assert not run(baker)
    assert baker.found is None
    assert path.read_text() == "whole"
    assert run(baker)


def test_an_interrupted_step_finds_its_unfinished_work(baker: Baker) -> None:
    baker.fails = True
    with pytest.raises(KeyboardInterrupt):
        run(baker)
    baker.fails = False
    assert not run(baker)
    assert baker.found == "half"
    assert run(baker)


def test_an_interrupted_step_with_other_inputs_starts_anew(baker: Baker) -> None:
    baker.fails = True
    with pytest.raises(KeyboardInterrupt):
        run(baker, "white")
    baker.fails = False
    run(baker, "brown")
    assert baker.found is None


def test_a_cheap_step_is_never_skipped(baker: Baker) -> None:
    for count in (1, 2):
        Workspace(baker.folder).run(baker.step(is_cheap=True), 1, 1)
        assert baker.count == count


def test_the_table_marks_what_was_skipped(baker: Baker) -> None:
    run(baker)
    workspace = Workspace(baker.folder)
    workspace.run(baker.step(), 1, 1)
    text = table(workspace.done)
    assert "baked 1" in text
    assert "found intact" in text


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(VicunaError, match="holds files that no demo made"):
        claim(tmp_path)
    assert main(["--output-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --output-dir")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_demos_folder_is_taken_again(tmp_path: Path) -> None:
    claim(tmp_path / "new")
    (tmp_path / "new" / "more").write_text("x")
    claim(tmp_path / "new")


def test_the_largest_peak_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / MARKER, {"peak_bytes": 5})
    assert note_peak(tmp_path, 3) == 5
    assert note_peak(tmp_path, 7) == 7
    assert note_peak(tmp_path, 1) == 7


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_memory_of_this_process_is_seen() -> None:
    with MemoryWatch(interval_seconds=0.01) as watch:
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        while not watch.peak_bytes:
            pass
        del block
    assert watch.peak_bytes > 64 << 20
