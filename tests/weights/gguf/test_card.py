"""Descriptive metadata out of a README and flags."""

from pathlib import Path

import pytest

from tests.weights.gguf.builders import make_model
from vicuna.weights.gguf.card import Card, card_metadata, read_front_matter, size_label
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


def _bomb() -> str:
    rows = ["x0: &x0 {a: 1}", *(f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 10)}]}}" for i in range(1, 8))]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("front_matter", "said"),
    [
        (_bomb(), "has an alias; none is taken"),
        ("a: " + "[" * 5_000, "nested more than 16 deep"),
        ("? " * 3_000, "nested more than 16 deep"),
        ("tags: [" + "a," * 400_000 + "]", "has no end within 262,144 bytes"),
        (" \n" * 500_000, "has no end within 262,144 bytes"),
        ("license: " + "9" * 5_000, "not YAML that is read"),
        ("license: !!python/object/apply:os.system ['x']", "not YAML that is read"),
    ],
)
def test_front_matter_of_no_bounded_cost_is_not_read(
    tmp_path: Path, front_matter: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n")
    assert read_front_matter(tmp_path / "README.md") == {}
    warning = capsys.readouterr().err
    assert said in warning and warning.count("\n") == 1 and len(warning) < 600


def test_values_of_a_card_are_bounded_and_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        '---\nlicense: 0xff\nmodel_name: "\\x1b[31m"\nlicense_link: "'
        + "x" * 9_000
        + '"\ntags: ['
        + "a," * 1_000
        + "]\n---\n"
    )
    metadata = card_metadata(tmp_path, Card(), 1)
    assert metadata["general.license"].value == "255"
    assert metadata["general.name"].value == "\\x1b[31m"
    assert len(metadata["general.license.link"].value) < 600
    assert len(metadata["general.tags"].value) == 256


@pytest.mark.parametrize("text", ["", "text", "---", "---\n---\n", "----\na: 1\n---\n", "a\n---\na: 1\n---\n"])
def test_readmes_without_front_matter(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_front_matter(tmp_path / "README.md") == {}
    assert (capsys.readouterr().err == "") == (text != "---")


def test_front_matter_with_other_line_ends_and_a_mark(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("\ufeff--- \r\nlicense: mit\r\nlanguage: [en]\r\n--- \r\ntext".encode())
    assert read_front_matter(tmp_path / "README.md") == {"license": "mit", "language": ["en"]}
