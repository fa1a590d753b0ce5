"""Hashes of words and n-grams."""

import numpy as np
import pytest

from tests.data.builders import record
from vicuna.data.steps.shingles import (
    CACHED_CHARACTERS,
    CHUNK_CHARACTERS,
    _HashCache,
    hashes_of,
    phrase_hashes,
    word_hashes,
)


def test_words() -> None:
    def same(left: str, right: str) -> bool:
        return np.array_equal(word_hashes(left), word_hashes(right))

    assert same("Hello, World!", "hello — world")
    assert same("STRASSE", "straße")
    assert not same("ab c", "a bc")
    assert not same("abc", "cba")
    assert len(word_hashes("我喜欢 cats。ひらがな")) == 3 + 1 + 4
    assert len(word_hashes("한국어 문장 입니다")) == 3
    assert len(word_hashes("don't 3.5 x_y")) == 6
    assert len(word_hashes("")) == len(word_hashes(" .,! \n")) == 0
    assert len(word_hashes("\ud800 half a pair 😀")) == 4
    # The same words as ASCII and beside other letters, at the start and far into the text.
    assert word_hashes("one two ü")[:2].tolist() == word_hashes("one two")[:2].tolist()
    assert word_hashes("x " * 5000 + "end")[-1] == word_hashes("end")[0]
    long = "word " * (CHUNK_CHARACTERS // 5 + 100)
    assert len(set(word_hashes(long).tolist())) <= 3
    assert len(word_hashes("ß " * CHUNK_CHARACTERS)) == CHUNK_CHARACTERS  # "ss", folded: longer than the text
    assert len(phrase_hashes(word_hashes("one two three"), 5)) == 0
    assert phrase_hashes(word_hashes("a b c d"), 3)[1] == phrase_hashes(word_hashes("b c d"), 3)[0]
    assert phrase_hashes(word_hashes("a b c"), 3)[0] != phrase_hashes(word_hashes("c b a"), 3)[0]


@pytest.mark.parametrize("length", [1, CHUNK_CHARACTERS])
def test_all_texts_of_a_record_at_once_have_the_words_of_each(length: int) -> None:
    texts = ["", "One two", "  ... ", "Straße, 我喜欢猫!", "\ud800 x", "two", "end" * length]
    expected = [word_hashes(text).tolist() for text in texts]
    assert [words.tolist() for words in hashes_of(record(*(f"u:{text}" for text in texts)))] == expected
    assert [words.tolist() for words in hashes_of(record(*(f"u:{text}" for text in texts[::-1])))] == expected[::-1]
    assert hashes_of(record()) == ()


def test_what_is_kept_of_words_is_bounded_and_no_mistake() -> None:
    kept = _HashCache()
    texts = [(f"question {number}", "word " * 20_000) for number in range(40)]
    for given in (*texts, *reversed(texts), *texts):
        assert [words.tolist() for words in kept.hashes(given)] == [word_hashes(text).tolist() for text in given]
        assert kept._characters == sum(len(text) for key in kept._hashes for text in key)
        assert kept._characters <= CACHED_CHARACTERS + 100_020 * 2
    assert 15 < len(kept._hashes) < 25
