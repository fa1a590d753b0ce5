"""Tokenizer files: damaged ones, and the bos that they ask for."""

import json
from pathlib import Path

import pytest

from tests.weights.gguf.builders import byte_level, exported, make_model, transformers_tokenizer
from vicuna.errors import VicunaError
from vicuna.weights.gguf.from_gguf import import_gguf
from vicuna.weights.gguf.llama_cpp import LlamaCpp


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tokenizer.json", "{", "not JSON"),
        ("tokenizer.json", "[]", "a JSON object"),
        ("tokenizer.json", '{"model": 3}', "has no model in it"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}}, "decoder": "ByteLevel"}', "no vocabulary"),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {"a": 4000000000}}, "decoder": "ByteLevel"}',
            "not those",
        ),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": ["a b c"]}, "decoder": "ByteLevel"}', "not a pair"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {"\\ud800": 0}, "merges": []}, "decoder": "ByteLevel", '
            '"pre_tokenizer": {"type": "ByteLevel"}}',
            "is no Unicode",
        ),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "is a WordPiece tokenizer"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "y"}}}', "not an id and a text"),
        ("added_tokens.json", '{"other": 3}', "id 3 is 'this' here and 'other' in another file"),
    ],
)
def test_damaged_tokenizer_files(tmp_path: Path, name: str, text: str, said: str) -> None:
    tokenizer_folder = byte_level(tmp_path / "tokenizer", "gpt-2")
    if name == "added_tokens.json":
        config = {"added_tokens_decoder": {"3": {"content": "this"}}}
        (tokenizer_folder / "tokenizer_config.json").write_text(json.dumps(config))
    folder = make_model(tmp_path / "model", tokenizer_folder)
    (folder / name).write_text(text)
    with pytest.raises(VicunaError, match=said):
        exported(folder)


def test_bos_is_put_before_texts_as_the_tokenizer_does(tmp_path: Path) -> None:
    for number, adds in enumerate((True, False)):
        folder = make_model(
            tmp_path / f"model{number}", byte_level(tmp_path / f"tokenizer{number}", "llama-bpe", add_bos_token=adds)
        )
        file = exported(folder)
        with LlamaCpp(file) as llama_cpp:
            ids = llama_cpp.ask("/tokenize", {"content": "hi", "add_special": True})["tokens"]
        assert (ids[0] == transformers_tokenizer(folder).bos_token_id) is adds
        back = tmp_path / f"back{number}"
        import_gguf(file, back)
        assert transformers_tokenizer(back)("hi")["input_ids"] == ids
