"""Shipped files are found in a checkout and in an installed wheel."""

from pathlib import Path

import pytest

from vicuna import material as module
from vicuna.errors import VicunaError
from vicuna.material import material


def test_a_file_of_the_checkout() -> None:
    assert material("eval/questions.jsonl").is_file()


def test_a_wheel_has_them_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vicuna"
    (package / "material" / "data").mkdir(parents=True)
    (package / "material" / "data" / "identity.jsonl").touch()
    monkeypatch.setattr(module, "PACKAGE", package)
    assert material("data/identity.jsonl") == package / "material" / "data" / "identity.jsonl"
    with pytest.raises(VicunaError, match=r"data/other\.jsonl is missing from this installation"):
        material("data/other.jsonl")
