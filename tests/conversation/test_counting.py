"""Counts without tokenizing twice are the counts of `encode`, for every template and every kind of tokenizer."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conversation.builders import KINDS, WORD_TEXTS, many, message_lists
from vicuna.conversation import Message, TokenCounter, encode, get_template, template_names
from vicuna.conversation.tokens import Fragment, encoder_for


@pytest.mark.parametrize("template", [name for name in template_names() if name != "hf"])
@pytest.mark.parametrize("kind", ["sentencepiece", "bpe"])
@many
@given(conversations=st.lists(message_lists(WORD_TEXTS), min_size=1, max_size=3))
def test_counts_are_those_of_the_trainer(
    tokenizers: Any, kind: str, template: str, conversations: list[list[Message]]
) -> None:
    check(get_template(template), tokenizers[kind], conversations)


@pytest.mark.parametrize("kind", KINDS)
@settings(parent=many, max_examples=150)
@given(conversations=st.lists(message_lists(WORD_TEXTS), min_size=1, max_size=3))
def test_counts_are_those_of_the_trainer_for_every_kind(
    tokenizers: Any, kind: str, conversations: list[list[Message]]
) -> None:
    check(get_template("vicuna_v1.1"), tokenizers[kind], conversations)


@many
@given(contents=st.lists(WORD_TEXTS, min_size=1, max_size=6))
def test_counts_with_the_tokenizers_own_template(bpe_tokenizer: Any, contents: list[str]) -> None:
    turns = [Message("user" if at % 2 == 0 else "assistant", content) for at, content in enumerate(contents)]
    check(get_template("hf"), bpe_tokenizer, [turns])


def check(template: Any, tokenizer: Any, conversations: list[list[Message]]) -> None:
    counter, prepared = TokenCounter(template, tokenizer), TokenCounter(template, tokenizer)
    prepared.prepare(conversations)
    for messages in conversations * 2:  # the second time it remembers
        assert counter(messages) == prepared(messages) == len(encode(messages, template, tokenizer).input_ids)


def test_nothing_is_tokenized_twice(sentencepiece_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = get_template("vicuna_v1.1")
    counter = TokenCounter(template, sentencepiece_tokenizer)
    encoder = encoder_for(template, sentencepiece_tokenizer)
    given_texts: list[str] = []
    length, lengths = encoder.length, encoder.lengths

    def watched(run: Fragment) -> int:
        given_texts.append(run.text)
        return length(run)

    def all_watched(texts: Sequence[str], separator: str) -> list[int]:
        given_texts.extend(texts)
        return lengths(texts, separator)

    monkeypatch.setattr(encoder, "length", watched)
    monkeypatch.setattr(encoder, "lengths", all_watched)
    words = [Message("user", "one two three"), Message("assistant", "four five six")]
    counter(words)
    assert given_texts
    given_texts.clear()
    counter([*words, *words])
    assert len(given_texts) == 1  # `USER:` at the start of a line, which was at the start of the text before
    given_texts.clear()
    counter([*words, *words, *words])
    assert not given_texts
