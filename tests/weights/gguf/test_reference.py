"""The model run by transformers: tokens, and probabilities of the next."""

import math
from pathlib import Path

import pytest

from tests.weights.gguf.builders import make_model, small_sentencepiece
from vicuna.weights.gguf.reference import ReferenceModel

pytest.importorskip("torch")


def test_tokens_and_probabilities(tmp_path: Path, tokenizer: Path) -> None:
    model = ReferenceModel(make_model(tmp_path / "model", tokenizer), "the model")
    ids = model.tokenize("hello<|finish|>", parse_special=False)
    assert len(ids) > len(model.tokenize("hello<|finish|>", parse_special=True)) > 1
    found = model.log_probabilities(ids, 10_000)
    assert math.isclose(sum(map(math.exp, found.values())), 1, rel_tol=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert list(model.log_probabilities(ids, 3)) == list(found)[:3]
    assert model.logits(ids).shape == (len(ids), len(found))


def test_sentencepieces_own_ids_are_taken(tmp_path: Path) -> None:
    import sentencepiece

    folder = make_model(tmp_path / "model", small_sentencepiece(tmp_path / "tokenizer"))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    model = ReferenceModel(folder, "the model")
    assert model.tokenize("  two spaces", parse_special=False) == pieces.encode("  two spaces")
    assert not model.normalizes and not model.omits_second_space
