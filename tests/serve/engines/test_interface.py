"""Engines by name, and the folder of a model."""

from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.serve.engines.interface import EngineOptions, load_engine, model_directory


def test_an_engine_is_found_by_its_name() -> None:
    assert load_engine("sim", EngineOptions("length=3", max_slots=5)).max_slots == 5
    with pytest.raises(VicunaError, match=r"unknown engine 'nativ'; .* did you mean 'native'"):
        load_engine("nativ", EngineOptions("m"))


def test_a_model_s_folder_exists_or_is_named(tmp_path: Path) -> None:
    assert model_directory(str(tmp_path)) == tmp_path
    (tmp_path / "model.gguf").touch()
    for name, reason in (("model.gguf", "is a file"), ("nowhere", "does not exist")):
        with pytest.raises(VicunaError, match=f"{name}' {reason}; give the path of a Hugging Face model directory"):
            model_directory(str(tmp_path / name))
