"""Words whose tokens do not depend on their neighbours: together they are the text."""

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given

from tests.conversation.builders import KINDS, WORD_TEXTS, many
from vicuna.conversation.tokenizer import AddedToken
from vicuna.conversation.words import Words, set_words, words_of


def test_kinds_whose_words_are_sure_are_known(tokenizers: Any) -> None:
    assert [kind for kind in KINDS if words_of(tokenizers[kind]) is None] == ["unknown"]


@pytest.mark.parametrize("kind", KINDS[:-1])
@many
@given(text=WORD_TEXTS)
def test_the_words_of_a_text_are_the_text(tokenizers: Any, kind: str, text: str) -> None:
    words = words_of(tokenizers[kind])
    assert words is not None
    assert "".join(words.pattern.findall(text)) == text
    if words.can_divide(text):
        assert "".join(map(words.text_of, words.cut(text))) == text


def test_words_are_cut_before_spaces(tokenizers: Any) -> None:
    text = "one  two.\n\n three "
    for kind, expected in (
        ("sentencepiece", ["one", "  two.", "\n", "\n", " three", " "]),
        ("bpe", ["one", "  two.\n\n three", " "]),
    ):
        words = words_of(tokenizers[kind])
        assert words is not None
        assert words.pattern.findall(text) == expected


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_words_survive_json(tokenizers: Any, kind: str) -> None:
    words = words_of(tokenizers[kind])
    assert words is not None
    assert Words.from_json(json.loads(json.dumps(words.to_json()))) == words


def test_what_is_known_from_before_is_not_found_out_again(tokenizers: Any) -> None:
    tokenizer = CountingStub()
    set_words(tokenizer, None)
    assert words_of(tokenizer) is None
    words = words_of(tokenizers["bpe"])
    set_words(tokenizer, words)
    assert words_of(tokenizer) is words


class CountingStub:
    """A tokenizer that cannot be asked anything."""

    name_or_path = ""
    bos_token: str | None = None
    eos_token: str | None = None
    all_special_tokens: tuple[str, ...] = ()
    added_tokens_decoder: ClassVar[dict[int, AddedToken]] = {}

    def convert_tokens_to_ids(self, token: str, /) -> int | None:
        raise AssertionError(token)

    def __call__(self, texts: list[str], /, **_: Any) -> dict[str, Any]:
        raise AssertionError(texts)
