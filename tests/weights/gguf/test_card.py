"""Descriptive metadata out of a README and flags."""

from pathlib import Path

import pytest

from tests.weights.gguf.builders import make_model
from vicuna.weights.gguf.card import Card, size_label
from vicuna.weights.gguf.from_gguf import GGUFModel
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


def test_the_metadata_describe_the_model(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "tiny-model", tokenizer)
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: tiny\nlanguage:\n- en\n- de\nbase_model: someone/base\ntags: [chat]\n---\n"
    )
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])
    said = GGUFModel(tmp_path / "a.gguf").metadata.values
    assert said["general.name"] == "tiny-model" and said["general.license"] == "other"
    assert said["general.license.name"] == "tiny" and said["general.languages"] == ["en", "de"]
    assert said["general.base_model.0.repo_url"] == "https://huggingface.co/someone/base"
    assert said["general.tags"] == ["chat"] and said["general.file_type"] == 1
    card = Card("Named", "apache-2.0", "https://example.org/model")
    export_gguf(folder, tmp_path / "b.gguf", FILE_TYPES["f16"], card=card)
    said = GGUFModel(tmp_path / "b.gguf").metadata.values
    assert (said["general.name"], said["general.license"]) == ("Named", "apache-2.0")
    assert said["general.source.url"] == "https://example.org/model" and "general.license.name" not in said
    (folder / "README.md").write_text("---\n[: broken\n---\n")
    export_gguf(folder, tmp_path / "c.gguf", FILE_TYPES["f16"])
    assert "front matter is not YAML" in capsys.readouterr().err
    assert [size_label(n) for n in (134_515_008, 6_738_415_616, 13_015_864_320, 999, 2_500)] == [
        "135M", "6.7B", "13B", "1.0K", "2.5K",
    ]  # fmt: skip
