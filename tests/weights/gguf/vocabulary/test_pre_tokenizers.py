"""Pre-tokenizers: llama.cpp's tokens are those of the tokenizers library."""

from pathlib import Path

import pytest

from tests.weights.gguf.builders import MORE_STRINGS, byte_level, exported, make_model, transformers_tokenizer
from vicuna.weights.gguf.check import HARD_STRINGS
from vicuna.weights.gguf.from_gguf import GGUFModel
from vicuna.weights.gguf.llama_cpp import LlamaCpp
from vicuna.weights.gguf.vocabulary.pre_tokenizers import PRE_TOKENIZERS


@pytest.mark.parametrize("pre", [one.name for one in PRE_TOKENIZERS])
def test_each_known_cut_gives_the_tokens_of_the_tokenizers_library(tmp_path: Path, pre: str) -> None:
    folder = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", pre))
    file = exported(folder)
    tokenizer = transformers_tokenizer(folder)
    with LlamaCpp(file) as llama_cpp:
        for text in (*HARD_STRINGS, *MORE_STRINGS):
            expected = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert llama_cpp.tokenize(text, parse_special=False) == expected, text
        spelled = "<|begin|>hi<|finish|>\n<|begin|>"
        assert llama_cpp.tokenize(spelled, parse_special=True) == tokenizer(spelled)["input_ids"]
    assert GGUFModel(file).metadata.values["tokenizer.ggml.pre"] == pre
