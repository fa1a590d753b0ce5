"""The folder of unfinished work: whose it is, when it is cleared, and which parts are used."""

from pathlib import Path

import pytest

import vicuna.data
from tests.data.builders import Stop, data_options, recording, run_command, write_lines
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.options import DataOptions
from vicuna.data.read.sources import find_sources
from vicuna.data.run import engines, work
from vicuna.data.run.work import run_key, work_folder, work_path
from vicuna.data.steps.phrases import LIST_STEPS


def test_only_one_run_at_a_time(tmp_path: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    sources = find_sources(tuple(inputs))
    with work_folder(DataOptions(tuple(inputs), out), sources):
        capsys.readouterr()
        assert run_command(*inputs, "--output-dir", out) == 1
        assert "another run writes it just now" in capsys.readouterr().err


def test_a_folder_that_is_not_ours_is_refused(
    tmp_path: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = work_path(tmp_path / "out")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert run_command(*inputs, "--output-dir", tmp_path / "out") == 1
    assert "needed for unfinished work" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_kill_between_any_two_files_of_the_work_is_no_obstacle(tmp_path: Path, inputs: list[Path]) -> None:
    folder = work_path(tmp_path / "out")
    for names in (["lock"], ["lock", ".run.json.x1.tmp"], ["lock", "000001.part", ".000002.part.x2.tmp"]):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")
        assert run_command(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
        assert not folder.exists()


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path, inputs: list[Path]) -> None:
    left = tmp_path / ".out.abc123.tmp"
    other = tmp_path / ".out.xyz.tmp"
    for folder, name in ((left, "records.jsonl"), (left, ".manifest.json.x.tmp"), (other, "novel.txt")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("half")
    assert run_command(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
    assert not left.exists() and other.exists()


def test_every_list_is_in_the_key_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    for name in LIST_STEPS:
        keys = set()
        for content in ("one", "two"):
            write_lines(path, content)
            keys.add(run_key(data_options(**{name: (str(path),)}), ()))
        assert len(keys) == 2, name


def test_every_file_that_cleans_is_in_the_key_of_the_run() -> None:
    hashes = work.program_hashes()
    package = Path(vicuna.data.__file__).parent
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    assert files <= hashes.keys()
    assert {"data/run/batches.py", "data/lists/refusals.txt", "conversation/render.py"} <= hashes.keys()


def test_parts_of_another_version_of_the_program_are_not_used(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*inputs, "--output-dir", tmp_path / "out", "--workers", 1]
    current = work.program_hashes()
    monkeypatch.setattr(work, "program_hashes", lambda: current | {"data/run/batches.py": "another"})
    monkeypatch.setattr(engines, "clean_batch", recording([], stop_at=3))
    with pytest.raises(Stop):
        run_command(*arguments)
    assert len(list(work_path(tmp_path / "out").glob("*.part"))) == 3
    monkeypatch.setattr(work, "program_hashes", lambda: current)
    cleaned: list[int] = []
    monkeypatch.setattr(engines, "clean_batch", recording(cleaned))
    assert run_command(*arguments) == EXIT_SET_ASIDE
    assert cleaned[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["lock", "run.json", "000000.part", "000001.part"])
def test_links_planted_in_the_work_folder_reach_no_file(tmp_path: Path, inputs: list[Path], name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = work_path(tmp_path / "out")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    assert run_command(*inputs, "--output-dir", tmp_path / "out") in (0, 1, EXIT_SET_ASIDE)
    assert victim.read_text() == "precious"


def test_a_link_in_the_work_folders_place_is_refused(
    tmp_path: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "victim").mkdir()
    work_path(tmp_path / "out").symlink_to(tmp_path / "victim")
    assert run_command(*inputs, "--output-dir", tmp_path / "out") == 1
    assert "needed for unfinished work" in capsys.readouterr().err
    assert not list((tmp_path / "victim").iterdir())
