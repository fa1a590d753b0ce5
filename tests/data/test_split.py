"""Cutting between rounds: no round is lost, none comes twice, no piece is too long."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import record, turns
from vicuna.conversation import Message, encode, get_template
from vicuna.data.split import splitting, take_apart, token_counter
from vicuna.data.step import Drop, Keep, Outcome, Record, Split


def count_words(messages: Sequence[Message]) -> int:
    """A stand-in whose sums a reader can follow: one token a word."""
    return sum(len(message.content.split()) for message in messages)


def pieces(outcome: Outcome) -> list[Record]:
    if isinstance(outcome, Drop):
        return []
    assert isinstance(outcome, Keep | Split)
    return list(outcome.records) if isinstance(outcome, Split) else [outcome.record]


def test_a_short_record_is_only_counted() -> None:
    outcome = splitting(count_words, 10).run(record("u: a b", "a: c"))
    assert isinstance(outcome, Keep)
    assert (outcome.record.id, outcome.record.extra) == ("one", {"num_tokens": 3})


def test_pieces_are_filled_from_the_front_and_carry_the_system_text() -> None:
    given_record = record("s: be kind", "u: a", "a: b", "u: c", "a: d", "u: e", "a: f")
    outcome = splitting(count_words, 6).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [
        ["s: be kind", "u: a", "a: b", "u: c", "a: d"],
        ["s: be kind", "u: e", "a: f"],
    ]
    assert [piece.id for piece in pieces(outcome)] == ["one#1", "one#2"]
    assert {piece.original_id for piece in pieces(outcome)} == {"one"}
    assert [piece.to_row()["original_id"] for piece in pieces(outcome)] == ["one", "one"]


def test_a_round_too_long_is_named_and_not_bridged() -> None:
    given_record = record("u: a", "a: b", "u: long", "a: " + "word " * 9, "u: c", "a: d")
    outcome = splitting(count_words, 4).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [["u: a", "a: b"], ["u: c", "a: d"]]
    assert isinstance(outcome, Split)
    assert [(found.rule, found.turn, found.evidence) for found in outcome.repairs] == [
        ("round_too_long", 2, "10 tokens")
    ]


def test_a_record_of_long_rounds_only_is_dropped() -> None:
    outcome = splitting(count_words, 2).run(record("u: a b", "a: c"))
    assert isinstance(outcome, Drop)
    assert outcome.finding.rule == "too_long"


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12),
    has_system=st.booleans(),
    budget=st.integers(3, 15),
)
def test_every_round_comes_out_once_or_is_too_long(sizes: list[tuple[int, int]], has_system: bool, budget: int) -> None:
    lines = ["s: x"] if has_system else []
    for number, (question, answer) in enumerate(sizes):
        lines += ["u: " + f"q{number} " * question, "a: " + f"r{number} " * answer]
    given_record = record(*lines)
    outcome = splitting(count_words, budget).run(given_record)
    found = pieces(outcome)
    assert all(count_words(piece.messages) <= budget for piece in found)
    assert all(piece.extra["num_tokens"] == count_words(piece.messages) for piece in found)
    out = [part.messages[0] for piece in found for part in take_apart(piece).rounds]
    system = int(has_system)
    expected = [lines[system + 2 * number][3:] for number, size in enumerate(sizes) if sum(size) + system <= budget]
    assert [message.content for message in out] == expected


def test_tokens_are_those_of_the_training_template(bpe_tokenizer: Any) -> None:
    template = get_template("chatml")
    given_record = record(*(line for number in range(12) for line in (f"u: question {number}", "a: " + "answer " * 20)))
    outcome = splitting(token_counter(template, bpe_tokenizer), 150).run(given_record)
    found = pieces(outcome)
    assert len(found) > 2
    for piece in found:
        assert piece.extra["num_tokens"] == len(encode(piece.messages, template, bpe_tokenizer).input_ids) <= 150
    assert [message for piece in found for message in piece.messages] == list(given_record.messages)
