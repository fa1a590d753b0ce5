"""Tokenizers in exported files: llama.cpp's tokens beside those of the model's own tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.weights.gguf.builders import (
    F16,
    MORE_STRINGS,
    byte_level,
    exported,
    make_model,
    real_sentencepiece,
    small_sentencepiece,
    transformers_tokenizer,
)
from vicuna.conversation import encode_prompt, get_template, save_template
from vicuna.errors import VicunaError
from vicuna.weights.gguf.check import HARD_STRINGS, TURNS, check_gguf
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.llama_cpp import LlamaCpp
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.vocabulary.to_gguf import TokenType


def mistral_v3(folder: Path) -> Path:
    """A real one with control tokens such as [INST]."""
    return real_sentencepiece(folder, "mistral_instruct_tokenizer_240323.model.v3")


@pytest.mark.parametrize("make", [real_sentencepiece, mistral_v3, small_sentencepiece])
def test_sentencepiece_gives_the_tokens_of_sentencepiece(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    import sentencepiece

    folder = make_model(tmp_path / "model", make(tmp_path / "tokenizer"))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with LlamaCpp(exported(folder)) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            assert llama_cpp.tokenize(text, parse_special=False) == pieces.encode(text), text


def test_a_sentencepiece_tokenizer_saved_as_json_only_keeps_its_tokens(tmp_path: Path) -> None:
    """llama.cpp's converter makes other tokens of such a folder, silently: it has no scores there."""
    make_model(tmp_path / "model", real_sentencepiece(tmp_path / "tokenizer"))
    folder = make_model(tmp_path / "json", tmp_path / "tokenizer")
    tokenizer = transformers_tokenizer(folder)
    (folder / "tokenizer.model").unlink()
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists() and not (folder / "tokenizer.model").exists()
    with LlamaCpp(exported(folder)) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            more = (
                " " if text.startswith(" ") else ""
            )  # transformers 5 spares itself the space before one, llama.cpp not
            expected = tokenizer(more + text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            assert llama_cpp.tokenize(text, parse_special=False) == expected, text
    assert check_gguf(folder, folder / "model.gguf").mismatches == []


@pytest.mark.parametrize("template", ["vicuna_v1.1", "llama-2", "mistral"])
def test_llama_cpp_prompts_as_was_trained(tmp_path: Path, template: str) -> None:
    folder = make_model(tmp_path / "model", real_sentencepiece(tmp_path / "tokenizer"))
    save_template(get_template(template), folder)
    tokenizer = transformers_tokenizer(folder)
    rows = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    with LlamaCpp(exported(folder)) as llama_cpp:
        prompt = llama_cpp.render(rows)
        found = llama_cpp.tokenize(prompt, parse_special=True)
        bos = [] if found[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id]
        assert bos + found == encode_prompt(TURNS, get_template(template), tokenizer)


def test_stop_tokens_and_templates_are_in_the_file(tmp_path: Path) -> None:
    special = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "llama-bpe", special), bos_token_id=None)
    save_template(get_template("llama-3"), folder)
    tokenizer = transformers_tokenizer(folder)
    file = exported(folder)
    metadata = GGUFModel(file).metadata.values
    ids = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot", "eom")}
    assert tokenizer.convert_ids_to_tokens(list(ids.values())) == [
        "<|begin|>",
        "<|finish|>",
        "<|eot_id|>",
        "<|eom_id|>",
    ]
    assert metadata["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text("utf-8")
    back = tmp_path / "back"
    import_gguf(file, back)
    ends = json.loads((back / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends) == {ids["eos"], ids["eot"], ids["eom"]}
    assert transformers_tokenizer(back).chat_template == metadata["tokenizer.chat_template"]


def test_every_end_of_generation_config_is_said(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "gpt-2", ("<|a|>", "<|b|>", "<|c|>")))
    tokenizer = transformers_tokenizer(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|finish|>", "<|a|>", "<|b|>"])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    metadata = GGUFModel(exported(folder)).metadata.values
    assert [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == ends


def test_a_padded_vocabulary_and_added_tokens(tmp_path: Path) -> None:
    """Vicuna v0's shape: one token more than sentencepiece knows, said in added_tokens.json; then padding."""
    tokenizer_folder = small_sentencepiece(tmp_path / "tokenizer")
    (tokenizer_folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 500, "<plain word>": 501}))
    (tokenizer_folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    folder = make_model(tmp_path / "model", tokenizer_folder, vocab_size=512)
    file = exported(folder)
    model = GGUFModel(file)
    assert model.tokenizer.tokens[500:504] == ["[PAD]", "<plain word>", "[PAD502]", "[PAD503]"]
    kinds = [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED]
    assert model.tokenizer.token_types[500:503] == kinds
    assert model.metadata.values["tokenizer.ggml.padding_token_id"] == 500
    with LlamaCpp(file) as llama_cpp:
        assert 501 in llama_cpp.tokenize("a <plain word> b", parse_special=False)
        assert 500 not in llama_cpp.tokenize("a [PAD] b", parse_special=False)
        assert 500 in llama_cpp.tokenize("a [PAD] b", parse_special=True)


def test_a_token_without_a_row_is_named(tmp_path: Path) -> None:
    tokenizer_folder = small_sentencepiece(tmp_path / "tokenizer")
    (tokenizer_folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 500}))
    folder = make_model(tmp_path / "model", tokenizer_folder)
    with pytest.raises(VicunaError, match=r"token '\[PAD\]' has id 500, but the embedding has only 500 rows"):
        exported(folder)


def test_tokenizers_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    folder = make_model(
        tmp_path / "unigram", small_sentencepiece(tmp_path / "one", model_type="unigram", vocab_size=340)
    )
    with pytest.raises(VicunaError, match="is a unigram model"):
        exported(folder)
    folder = make_model(tmp_path / "cut", byte_level(tmp_path / "two", "gpt-2"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(VicunaError, match=r"cuts text as this one does .* --pre-tokenizer NAME"):
        exported(folder)
    export_gguf(folder, folder / "stated.gguf", F16, pre_tokenizer="gpt-2")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(VicunaError, match=r"neither tokenizer.model nor tokenizer.json"):
        exported(folder)


def test_a_damaged_sentencepiece_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", small_sentencepiece(tmp_path / "tokenizer"))
    for data in (b"", b"\xff" * 100, (folder / "tokenizer.model").read_bytes()[:1000]):
        (folder / "tokenizer.model").write_bytes(data)
        with pytest.raises(VicunaError, match=r"tokenizer.model is no sentencepiece model|rows"):
            exported(folder)
