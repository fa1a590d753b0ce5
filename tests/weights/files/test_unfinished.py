"""Unfinished folders: removed after a user's error, locked while somebody writes."""

from contextlib import suppress
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.weights.files.unfinished import (
    JOB_NAME,
    JOURNAL_NAME,
    LOCK_NAME,
    resumable_directory,
    unfinished_path,
)


def test_an_error_of_the_users_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match="wrong"), resumable_directory(tmp_path / "out", {}) as unfinished:
        (unfinished.folder / "file").write_text("x")
        raise VicunaError("wrong")
    assert not list(tmp_path.iterdir())


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    with (
        resumable_directory(tmp_path / "out", {}) as unfinished,
        pytest.raises(VicunaError, match=r"another process is writing .*out; wait"),
        resumable_directory(tmp_path / "out", {}),
    ):
        pass
    assert unfinished.folder == unfinished_path(tmp_path / "out")
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("name", [JOB_NAME, JOURNAL_NAME, LOCK_NAME, "model.safetensors.tmp", "tokenizer.json"])
def test_links_planted_in_the_unfinished_folder_reach_no_file(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = unfinished_path(tmp_path / "out")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with suppress(VicunaError), resumable_directory(tmp_path / "out", {"a": 1}) as unfinished:
        unfinished.note({"name": "x"})
    assert victim.read_text() == "precious"


def test_a_link_in_the_unfinished_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    unfinished_path(tmp_path / "out").symlink_to(tmp_path / "victim")
    with pytest.raises(VicunaError, match="is a link"), resumable_directory(tmp_path / "out", {"a": 1}):
        pass
    assert (tmp_path / "victim" / "file").read_text() == "precious"
