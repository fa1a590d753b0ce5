"""Cutting between rounds: no round is lost, none comes twice, no piece is too long."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import record, turns
from vicuna.conversation import Message, TokenCounter, encode, get_template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.data.options import OverLong
from vicuna.data.step_kinds import Drop, Keep, Outcome, Record, Split
from vicuna.data.steps.split import Round, count_rounds, most_that_fit, sections_of, split_step


def count_words(messages: Sequence[Message]) -> int:
    """A stand-in whose sums a reader can follow: one token a word."""
    return sum(len(message.content.split()) for message in messages)


def pieces(outcome: Outcome) -> list[Record]:
    if isinstance(outcome, Drop):
        return []
    assert isinstance(outcome, Keep | Split)
    return list(outcome.records) if isinstance(outcome, Split) else [outcome.record]


def rules(outcome: Outcome) -> list[tuple[str, int | None, str]]:
    assert isinstance(outcome, Keep | Split)
    return [(found.rule, found.turn, found.evidence) for found in outcome.repairs]


def test_a_short_record_is_only_counted() -> None:
    outcome = split_step(count_words, 10).run(record("u: a b", "a: c"))
    assert isinstance(outcome, Keep)
    assert (outcome.record.id, outcome.record.extra) == ("one", {"num_tokens": 3})


def test_pieces_are_filled_from_the_front_and_carry_the_system_text() -> None:
    given_record = record("s: be kind", "u: a", "a: b", "u: c", "a: d", "u: e", "a: f")
    outcome = split_step(count_words, 6).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [
        ["s: be kind", "u: a", "a: b", "u: c", "a: d"],
        ["s: be kind", "u: e", "a: f"],
    ]
    assert [piece.id for piece in pieces(outcome)] == ["one#1", "one#2"]
    assert {piece.original_id for piece in pieces(outcome)} == {"one"}
    assert [piece.to_row()["original_id"] for piece in pieces(outcome)] == ["one", "one"]


def test_a_round_too_long_is_named_and_not_bridged() -> None:
    given_record = record("u: a", "a: b", "u: long", "a: " + "word " * 9, "u: c", "a: d")
    outcome = split_step(count_words, 4).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [["u: a", "a: b"], ["u: c", "a: d"]]
    assert rules(outcome) == [("round_too_long", 2, "10 tokens")]


def test_a_record_of_long_rounds_only_is_dropped() -> None:
    outcome = split_step(count_words, 2).run(record("u: a b", "a: c"))
    assert isinstance(outcome, Drop)
    assert outcome.finding.rule == "too_long"


def test_a_round_too_long_may_be_kept_and_is_marked() -> None:
    given_record = record("s: be kind", "u: a", "a: b", "u: long", "a: " + "word " * 9, "u: c", "a: d")
    outcome = split_step(count_words, 6, "keep", 1).run(given_record)
    found = pieces(outcome)
    assert [piece.extra for piece in found] == [
        {"num_tokens": 4},
        {"num_tokens": 12, "over_long": True},
        {"num_tokens": 4},  # what was never shown is no context
    ]
    assert rules(outcome) == [("over_long_kept", 3, "12 tokens")]
    assert count_rounds(given_record, outcome) == (3, 3, 0)


def test_the_answer_of_a_round_too_long_may_be_cut() -> None:
    answer = "One two.\n\n- three\n- four five\n\n```\nsix\n\nseven\n```\n\nEight"
    given_record = record("s: be kind", "u: a", f"a: {answer}", "u: c", "a: d")
    outcome = split_step(count_words, 10, "cut").run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [
        ["s: be kind", "u: a", "a: One two.\n\n- three\n- four five"],
        ["s: be kind", "u: c", "a: d"],
    ]
    assert rules(outcome) == [("answer_cut", 1, "10 of 15 tokens kept")]
    assert count_rounds(given_record, outcome) == (2, 2, 0)


def test_a_cut_keeps_whole_answers_before_the_one_that_is_too_long() -> None:
    given_record = record("u: a", "a: b", "t: c", "a: " + "word " * 9)
    [piece] = pieces(split_step(count_words, 5, "cut").run(given_record))
    assert turns(piece) == ["u: a", "a: b"]
    assert piece.turns == (0, 1)


@pytest.mark.parametrize("lines", [["u: " + "word " * 9, "a: b"], ["u: a", "a: " + "word " * 9]])
def test_a_round_that_cannot_be_cut_is_left_out(lines: list[str]) -> None:
    given_record = record(*lines, "u: c", "a: d")
    outcome = split_step(count_words, 5, "cut").run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [["u: c", "a: d"]]
    assert rules(outcome) == [("round_too_long", 0, "10 tokens")]
    assert count_rounds(given_record, outcome) == (2, 1, 1)


def test_later_pieces_carry_the_rounds_before_them_as_context() -> None:
    given_record = record("s: x", *(line for number in range(4) for line in (f"u: q{number} w w", f"a: r{number} w w")))
    outcome = split_step(count_words, 19, carry_over=1).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [
        ["s: x", "u: q0 w w", "a: r0 w w", "u: q1 w w", "a: r1 w w", "u: q2 w w", "a: r2 w w"],
        ["s: x", "u: q2 w w", "a: r2 w w", "u: q3 w w", "a: r3 w w"],
    ]
    assert [piece.extra.get("context_messages") for piece in pieces(outcome)] == [None, 2]
    assert count_rounds(given_record, outcome) == (4, 4, 0)


def test_context_of_an_earlier_cleaning_stays_context() -> None:
    lines = ["u: q0", "a: r0", "u: q1", "a: r1", "u: q2", "a: r2"]
    given_record = replace(record(*lines), extra={"context_messages": 2})
    [whole] = pieces(split_step(count_words, 6).run(given_record))
    assert whole.extra == {"context_messages": 2, "num_tokens": 6}
    outcome = split_step(count_words, 4).run(given_record)
    assert [turns(piece) for piece in pieces(outcome)] == [lines[:4], lines[4:]]
    assert [piece.extra.get("context_messages") for piece in pieces(outcome)] == [2, None]
    assert count_rounds(given_record, outcome) == (2, 2, 0)


def test_context_is_counted_anew_after_steps_that_took_messages_out() -> None:
    given_record = replace(record("s: x", "u: q0", "a: r0", "u: q1", "a: r1"), extra={"context_messages": 2})
    [whole] = pieces(split_step(count_words, 9).run(given_record.select([0, 3, 4])))
    assert "context_messages" not in whole.extra


@pytest.mark.parametrize("value", ["2", -1, True, None, 2.0, 2, 9])
def test_context_that_makes_no_sense_is_named(value: object) -> None:
    outcome = split_step(count_words, 9).run(replace(record("u: a", "a: b"), extra={"context_messages": value}))
    assert isinstance(outcome, Drop)
    assert outcome.finding.rule == "bad_context"


ANSWERS = ["a b c", "a b\n\nc d", "- a\n- b\n- c", "```\na\n\nb\n```", "a\n\n```\nb c d e f g\n```\n\nh", "x " * 20]


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(ANSWERS)), min_size=1, max_size=10),
    has_system=st.booleans(),
    num_context=st.integers(0, 3),
    budget=st.integers(3, 25),
    over_long=st.sampled_from(["drop", "cut", "keep"]),
    carry_over=st.integers(0, 3),
)
def test_every_round_comes_out_once_or_is_named(
    sizes: list[tuple[int, str]],
    has_system: bool,
    num_context: int,
    budget: int,
    over_long: OverLong,
    carry_over: int,
) -> None:
    lines = ["s: x"] * has_system
    for number, (size, answer) in enumerate(sizes):
        lines += ["u: " + f"q{number} " * size, f"a: {answer}"]
    given_record = replace(record(*lines), extra={"context_messages": 2 * min(num_context, len(sizes) - 1)})
    outcome = split_step(count_words, budget, over_long, carry_over).run(given_record)
    found = pieces(outcome)
    num_in, num_out, num_dropped = count_rounds(given_record, outcome)
    assert num_in == num_out + num_dropped

    learned: list[Round] = []
    for piece in found:
        assert piece.extra["num_tokens"] == count_words(piece.messages)
        assert (count_words(piece.messages) > budget) == ("over_long" in piece.extra)
        parts = sections_of(piece)
        assert [message.content for message in parts.system.messages] == ["x"] * has_system
        assert len(parts.context) <= max(carry_over, num_context)
        together = [*parts.context, *parts.rounds]
        for before, after in pairwise(together):  # neighbours in a piece are neighbours in the conversation
            assert before.turns[-1] + 1 == after.turns[0]
        learned += parts.rounds

    rounds = sections_of(given_record).rounds
    assert [part.turns[0] for part in learned] == sorted({part.turns[0] for part in learned})  # each once, in order
    assert len(learned) == num_out
    for part in learned:
        [whole] = [each for each in rounds if each.turns[0] == part.turns[0]]
        if part != whole:
            assert over_long == "cut"
            assert whole.messages[1].content.startswith(part.messages[1].content)
            assert count_words(whole.messages) + has_system > budget
    alone = [count_words(part.messages) + has_system for part in rounds]
    assert len(learned) >= sum(size <= budget for size in alone)  # what fits is never left out


def test_messages_before_the_first_question_are_not_lost() -> None:
    given_record = record("a: a b", "u: c", "u: d", "a: e", "s: f", "u: g", "a: h")
    outcome = split_step(count_words, 4).run(given_record)
    assert [line for piece in pieces(outcome) for line in turns(piece)] == turns(given_record)


def test_a_record_without_a_round_is_named() -> None:
    outcome = split_step(count_words, 2).run(record("s: a b c"))
    assert isinstance(outcome, Drop)
    assert (outcome.finding.rule, outcome.finding.evidence) == ("too_long", "3 tokens")


def test_tokens_are_those_of_the_training_template(bpe_tokenizer: Tokenizer) -> None:
    template = get_template("chatml")
    given_record = record(*(line for number in range(12) for line in (f"u: question {number}", "a: " + "answer " * 20)))
    outcome = split_step(TokenCounter(template, bpe_tokenizer), 150).run(given_record)
    found = pieces(outcome)
    assert len(found) > 2
    for piece in found:
        assert piece.extra["num_tokens"] == len(encode(piece.messages, template, bpe_tokenizer).input_ids) <= 150
    assert [message for piece in found for message in piece.messages] == list(given_record.messages)


def count_work(budget: int, num_rounds: int, carry_over: int) -> int:
    """The words that are counted while a record of so many rounds is split."""
    counted = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(count_words(messages))
        return counted[-1]

    rounds = [text for number in range(num_rounds) for text in ("u: " + "a " * (1 + number % 7), "a: b c d e")]
    split_step(count, budget, carry_over=carry_over).run(record(*rounds))
    return sum(counted)


@pytest.mark.parametrize("carry_over", [0, 3, 1000])
def test_a_large_budget_takes_no_more_counting_than_a_small_one(carry_over: int) -> None:
    small, large = count_work(400, 2000, carry_over), count_work(4000, 2000, carry_over)
    assert large < 2 * small
    assert count_work(4000, 8000, carry_over) < 5 * large


def test_context_that_is_there_already_is_searched_too() -> None:
    rounds = [text for number in range(2000) for text in (f"u: {number}", "a: b")]
    counted = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(len(messages))
        return len(messages)

    given_record = record(*rounds)
    outcome = split_step(count, 1000).run(replace(given_record, extra={"context_messages": 3000}))
    first = pieces(outcome)[0]
    assert first.extra["context_messages"] == 500  # as many as half of the budget takes
    assert sum(counted) < 10 * len(rounds)


def test_an_answer_of_many_parts_is_cut_in_a_few_counts() -> None:
    counted = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(len(messages))
        return len(messages)

    given_record = record("u: q", *["a: b"] * 4000)
    outcome = split_step(count, 1000, "cut").run(given_record)
    assert [len(piece.messages) for piece in pieces(outcome)] == [1000]
    assert sum(counted) < 10 * 4000


@given(
    sizes=st.lists(st.integers(0, 9), max_size=60),
    lengths=st.lists(st.integers(0, 9), min_size=60, max_size=60),
    limit=st.integers(1, 200),
    start=st.integers(0, 5),
)
def test_as_many_are_found_as_one_by_one(sizes: list[int], lengths: list[int], limit: int, start: int) -> None:
    """Whatever the lengths say about the sizes."""
    ends = [0, *accumulate(lengths[: start + len(sizes)])]
    tries = []

    def fill(number: int) -> float:
        tries.append(number)
        return sum(sizes[:number]) / limit

    expected = next((n for n in range(len(sizes), 0, -1) if sum(sizes[:n]) <= limit), 0)
    assert most_that_fit(fill, 0, ends, start) == expected
    assert len(tries) == len(set(tries))
