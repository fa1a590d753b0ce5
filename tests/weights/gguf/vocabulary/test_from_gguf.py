"""Tokenizers of imported files: the same tokens as before the export."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.gguf.builders import (
    MORE_STRINGS,
    byte_level,
    exported,
    make_model,
    small_sentencepiece,
    transformers_tokenizer,
)
from vicuna.weights.gguf.check import HARD_STRINGS
from vicuna.weights.gguf.config_from_gguf import Metadata
from vicuna.weights.gguf.container import GGUFFile, write_gguf
from vicuna.weights.gguf.from_gguf import import_gguf
from vicuna.weights.gguf.vocabulary.from_gguf import GGUFTokenizer
from vicuna.weights.gguf.vocabulary.to_gguf import read_vocabulary


@pytest.mark.parametrize("kind", ["llama-bpe", "qwen2", "sentencepiece"])
def test_tokens_survive_the_way_there_and_back(tmp_path: Path, kind: str) -> None:
    made = (
        small_sentencepiece(tmp_path / "tokenizer")
        if kind == "sentencepiece"
        else byte_level(tmp_path / "tokenizer", kind, ("<|im_start|>", "<|im_end|>"))
    )
    folder = make_model(tmp_path / "model", made)
    file = exported(folder)
    import_gguf(file, tmp_path / "back")
    before, after = transformers_tokenizer(folder), transformers_tokenizer(tmp_path / "back")
    assert len(before) == len(after) and before.bos_token == after.bos_token and before.eos_token == after.eos_token
    for text in (*HARD_STRINGS, *MORE_STRINGS, "<|im_start|>user\nhi<|im_end|>"):
        for split in (True, False):
            options = {"add_special_tokens": False, "split_special_tokens": split}
            assert before(text, **options)["input_ids"] == after(text, **options)["input_ids"], text
    if kind == "sentencepiece":
        import sentencepiece

        both = [
            sentencepiece.SentencePieceProcessor(model_file=str(place / "tokenizer.model"))
            for place in (folder, tmp_path / "back")
        ]
        assert all(both[0].encode(text) == both[1].encode(text) for text in (*HARD_STRINGS, *MORE_STRINGS))


@pytest.fixture(scope="module")
def plain_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("plain") / "tokenizer", "gpt-2", vocab_size=300)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), st.booleans(), max_size=8
    ),
    st.integers(0, 20),
)
def test_any_added_tokens_survive(tmp_path: Path, plain_tokenizer: Path, added: dict[str, bool], padding: int) -> None:
    """Whatever their text: the same ids and kinds in the file and in the tokenizer made of it."""
    from tokenizers import Tokenizer as Library

    folder = tmp_path / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plain_tokenizer, folder)
    value = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    known = {*value["model"]["vocab"], *(token["content"] for token in value["added_tokens"])}
    first = len(known)
    new = [(text, special) for text, special in added.items() if text not in known]
    for number, (text, special) in enumerate(new):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        value["added_tokens"].append({"id": first + number, "content": text, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(value), "utf-8")
    vocabulary = read_vocabulary(folder, first + len(new) + padding)
    write_gguf(tmp_path / "a.gguf", vocabulary.metadata(), [], lambda _: [], overwrite=True)
    back = GGUFTokenizer(Metadata(tmp_path / "a.gguf", GGUFFile(tmp_path / "a.gguf").metadata))
    assert back.tokens == vocabulary.tokens and back.token_types == vocabulary.token_types
    assert back.tokens[first : first + len(new)] == [text for text, _ in new]
    before, after = (
        Library.from_file(str(folder / "tokenizer.json")),
        Library.from_str(json.dumps(back.tokenizer_json())),
    )
    for text in (*(f"a{text}b {text}" for text in added), "plain words  12\n"):
        assert before.encode(text).ids == after.encode(text).ids
