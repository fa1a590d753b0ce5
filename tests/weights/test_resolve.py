from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.weights import small_model
from vicuna.weights.resolve import resolve_model, served_name


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("owner/name", "small-model"):
        Path(name).mkdir(parents=True)
        assert resolve_model(name).folder == Path(name)
        assert served_name(name) == Path(name).name


def test_the_small_model_by_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(small_model, "find_small_model", lambda: tmp_path / "made")
    assert resolve_model("small-model").folder == tmp_path / "made"
    assert served_name("small-model") == "small-model"


def test_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert resolve_model("~/mine").folder == tmp_path / "mine"


@pytest.mark.parametrize("name", ["missing", "/no/such/folder", "./owner/name", "a/b/c"])
def test_what_cannot_be_a_repository_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VicunaError, match=r"no such folder; give a folder, OWNER/NAME\[@REVISION\]"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("owner/name", "owner/name"),
        ("owner/name@v1", "owner/name@v1"),
        ("/models/vicuna-7b/", "vicuna-7b"),
        ("../models/vicuna-7b", "vicuna-7b"),
    ],
)
def test_the_name_that_was_written(name: str, served: str) -> None:
    assert served_name(name) == served


def test_a_link_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "run7").mkdir()
    (tmp_path / "current").symlink_to("run7")
    assert served_name(str(tmp_path / "current")) == "current"
