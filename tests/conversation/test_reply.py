"""Reply tokens become the text that was encoded, and nothing is shown that could still change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conversation.builders import TEXTS, all_templates, many
from vicuna.conversation import (
    Message,
    ReplyDecoder,
    Template,
    encode,
    get_template,
)
from vicuna.conversation.reply import REPLACEMENT_CHARACTER, _Search


@all_templates
@many
@given(content=TEXTS, cuts=st.lists(st.integers(1, 5), max_size=30))
def test_decoder_gives_the_reply_back(tokenizer: Any, template: Template, content: str, cuts: list[int]) -> None:
    """Whatever way the tokens arrive, the shown text is the message that was encoded."""
    for stop in (tokenizer.eos_token, *template.stop, *template.stop_tokens):
        if stop in content or content.endswith("\n") or "\ufffd" in content:
            return  # such a reply ends early, or its last character cannot be told from an unfinished one
    encoding = encode([Message("user", "q"), Message("assistant", content)], template, tokenizer)
    start, end = encoding.reply_spans[0]
    ids, shown = encoding.input_ids[start:end], ""
    decoder = ReplyDecoder(template, tokenizer)
    while ids and not decoder.stopped:
        size = cuts.pop() if cuts else 1
        shown += decoder.push(ids[:size])
        ids = ids[size:]
    assert shown + decoder.finish() == content


def test_decoder_holds_back_what_may_become_a_stop_string(bpe_tokenizer: Any) -> None:
    decoder = ReplyDecoder(get_template("chatml"), bpe_tokenizer, stop=["END."])
    ids = [bpe_tokenizer(piece)["input_ids"] for piece in ("one", " E", "ND", ", two ", "EN", "D.", " three")]
    pushed = [decoder.push(piece) for piece in ids]
    assert "".join(pushed) == "one END, two "
    assert pushed[1] == " "
    assert decoder.stopped
    assert decoder.finish() == ""


def test_decoder_never_shows_half_a_character(bpe_tokenizer: Any) -> None:
    decoder = ReplyDecoder(get_template("chatml"), bpe_tokenizer)
    shown = [decoder.push([token]) for token in bpe_tokenizer("🦙")["input_ids"]]
    assert shown[-1] == "🦙"
    assert set(shown[:-1]) == {""}


class Counting:
    """A tokenizer that counts the ids that it decodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.num_decoded = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._tokenizer(*arguments, **options)

    def decode(self, ids: Any, **options: Any) -> str:
        self.num_decoded += len(ids)
        return str(self._tokenizer.decode(ids, **options))


def ids_of(kind: str, tokenizer: Any, number: int) -> list[int]:
    """Tokens of which many in a row show nothing that is sure."""
    if kind == "control tokens":
        some = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    elif kind == "half characters":
        some = tokenizer("🦙", add_special_tokens=False)["input_ids"][-4:-3]
    elif kind == "ends of characters":
        some = tokenizer("🦙", add_special_tokens=False)["input_ids"][-1:]
    else:
        some = tokenizer("one two three", add_special_tokens=False)["input_ids"]
    return list((some * number)[:number])


@pytest.mark.parametrize("kind", ["control tokens", "half characters", "ends of characters", "words"])
def test_a_token_costs_the_same_whatever_stands_before_it(tokenizer: Any, kind: str) -> None:
    counts = []
    for number in (500, 2000):
        counting: Any = Counting(tokenizer)
        decoder = ReplyDecoder(get_template("chatml"), counting)
        for token in ids_of(kind, tokenizer, number):
            decoder.push([token])
        decoder.finish()
        counts.append(counting.num_decoded)
    assert counts[1] < 4.2 * counts[0] + 200


def test_broken_characters_are_shown_as_such(tokenizer: Any) -> None:
    decoder = ReplyDecoder(get_template("chatml"), tokenizer)
    shown = "".join(decoder.push([token]) for token in ids_of("half characters", tokenizer, 100))
    assert set(shown) == {REPLACEMENT_CHARACTER}
    rest = "".join(decoder.push([token]) for token in tokenizer("🦙 x", add_special_tokens=False)["input_ids"])
    assert (shown + rest + decoder.finish()).endswith("🦙 x")


@many
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3),
    pieces=st.lists(st.text("abc", max_size=6), max_size=8),
)
def test_stop_strings_are_found_in_pieces_as_in_the_whole(stops: list[str], pieces: list[str]) -> None:
    searches = [_Search(stop) for stop in stops]
    text = ""
    for piece in pieces:
        found = [place for search in searches if (place := search.find(piece)) is not None]
        places = [place for stop in stops if (place := (text + piece).find(stop)) >= 0]
        assert [len(text) + min(found)] == [min(places)] if found else not places
        text += piece
        if found:
            return
        for stop, search in zip(stops, searches, strict=True):
            sizes = range(min(len(stop) - 1, len(text)) + 1)
            assert search.num_matched == max(size for size in sizes if text.endswith(stop[:size]))
