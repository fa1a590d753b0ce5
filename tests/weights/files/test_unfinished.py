"""Unfinished folders: removed after a user's error, locked while somebody writes."""

from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.weights.files.unfinished import resumable_directory, unfinished_path


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
