"""The demo's stages: done once, skipped when intact, gone on with after a kill, done again when something changed."""

from pathlib import Path

import pytest

from vicuna.bot.stages import Figures, Stage, Workspace, table


class Counter:
    """A stage that writes a file and counts its runs; `is_interrupted` ends it half way.

    Attributes:
        found: what the file held when the last run began; None if it was not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.is_interrupted = folder, 0, False
        self.found: str | None = None

    def run(self) -> Figures:
        self.count += 1
        path = self.folder / "out" / "result.txt"
        self.found = path.read_text() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        if self.is_interrupted:
            raise KeyboardInterrupt
        path.write_text("whole")
        return {"shown": f"run {self.count}"}

    def stage(self, *inputs: object, is_cheap: bool = False) -> Stage:
        return Stage("count", "count the runs", self.run, inputs, ("out",), is_cheap)


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def run(counter: Counter, *inputs: object) -> bool:
    """Run the stage in a new workspace, as a new process would; was it skipped?"""
    return Workspace(counter.folder).run(counter.stage(*inputs), 1, 1).was_skipped


def test_an_intact_stage_is_skipped_with_its_figures(counter: Counter) -> None:
    assert not run(counter, "input")
    workspace = Workspace(counter.folder)
    assert workspace.run(counter.stage("input"), 1, 1).was_skipped
    assert workspace.figures("count") == {"shown": "run 1"}
    assert counter.count == 1


def test_other_inputs_remove_the_old_output_first(counter: Counter, tmp_path: Path) -> None:
    given = tmp_path / "input"
    given.write_text("old")
    run(counter, given)
    given.write_text("new")
    assert not run(counter, given)
    assert counter.found is None


@pytest.mark.parametrize("damage", ["touch", "delete", "add"])
def test_damaged_output_is_made_again(counter: Counter, damage: str) -> None:
    run(counter)
    path = counter.folder / "out" / "result.txt"
    if damage == "touch":
        path.write_text("damaged")
    elif damage == "delete":
        path.unlink()
    else:
        (counter.folder / "out" / "more").write_text("x")
    assert not run(counter)
    assert counter.found is None
    assert path.read_text() == "whole"
    assert run(counter)


def test_an_interrupted_stage_finds_its_unfinished_work(counter: Counter) -> None:
    counter.is_interrupted = True
    with pytest.raises(KeyboardInterrupt):
        run(counter)
    counter.is_interrupted = False
    assert not run(counter)
    assert counter.found == "half"
    assert run(counter)


def test_an_interrupted_stage_with_other_inputs_starts_anew(counter: Counter) -> None:
    counter.is_interrupted = True
    with pytest.raises(KeyboardInterrupt):
        run(counter, "old")
    counter.is_interrupted = False
    run(counter, "new")
    assert counter.found is None


def test_a_cheap_stage_is_never_skipped(counter: Counter) -> None:
    for count in (1, 2):
        Workspace(counter.folder).run(counter.stage(is_cheap=True), 1, 1)
        assert counter.count == count


def test_the_table_marks_what_was_skipped(counter: Counter) -> None:
    run(counter)
    workspace = Workspace(counter.folder)
    workspace.run(counter.stage(), 1, 1)
    text = table(workspace.done)
    assert "run 1" in text
    assert "found intact" in text
