"""The check of a GGUF file: what it finds, and what it warns about."""

import json
from pathlib import Path

import pytest

from tests.weights.gguf.builders import (
    LLAMA3,
    byte_level,
    exported,
    make_model,
    real_sentencepiece,
    transformers_tokenizer,
)
from vicuna.cli import main
from vicuna.conversation import get_template, save_template
from vicuna.weights.gguf.check import check_gguf
from vicuna.weights.gguf.from_gguf import import_gguf
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


def test_spaces_behind_control_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """llama.cpp puts them there as old tokenizers do; a model of a new one is warned about, not failed."""
    tokens = {}
    for legacy in (True, False):
        made = real_sentencepiece(tmp_path / f"tokenizer-{legacy}", legacy=legacy)
        folder = make_model(tmp_path / f"model-{legacy}", made)
        save_template(get_template("vicuna_v1.1"), folder)
        file = exported(folder)
        assert check_gguf(folder, file).mismatches == []
        assert ("after a control token llama.cpp puts a space" in capsys.readouterr().err) is not legacy
        back = tmp_path / f"back-{legacy}"
        import_gguf(file, back)
        tokens[legacy] = transformers_tokenizer(back)("a</s>b c", add_special_tokens=False)["input_ids"]
        assert tokens[legacy] == transformers_tokenizer(folder)("a</s>b c", add_special_tokens=False)["input_ids"]
    assert tokens[True] != tokens[False]


def test_another_tokenizer_is_told_by_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "smollm"))
    file = tmp_path / "out.gguf"
    options = ["--model", str(folder), "--output", str(file), "--type", "f32", "--check"]
    assert main(["export", "gguf", *options]) == 0
    assert "16 of 16 texts the same" in capsys.readouterr().out
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    del tokenizer["model"]["merges"][2:]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main(["export", "check", "--model", str(folder), "--gguf", str(file)]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {file} cuts text into other tokens than {folder}: '") and "instead of" in said


def test_a_wrong_rope_would_be_seen(tmp_path: Path, tokenizer: Path) -> None:
    """The figures above can fail: the same weights with another rope are another model."""
    scaled = make_model(tmp_path / "scaled", tokenizer, rope_scaling=LLAMA3)
    plain = make_model(tmp_path / "plain", tokenizer)
    export_gguf(scaled, tmp_path / "scaled.gguf", FILE_TYPES["f32"])
    assert check_gguf(plain, tmp_path / "scaled.gguf").agreement.mean_kl > 1e-3
