"""A judgment is the same after it was a row, and rows of MT-bench become judgments."""

from dataclasses import replace

import pytest

from vicuna.errors import VicunaError
from vicuna.eval.ask.usage import Usage
from vicuna.eval.judging.judgment import Judgment, Slot
from vicuna.eval.judging.prompts import shipped_prompt

TEXTS = {"question": "Q?", "answer": "one", "answer_a": "of m2", "answer_b": "of m1"}


def prompt(mode: str) -> str:
    shipped = shipped_prompt("pair" if mode == "pair" else "single", uses_reference=False)
    return shipped.messages(TEXTS, structured=False)[1].content


PAIR = Judgment(
    mode="pair",
    question_id=7,
    category="math",
    models=("m1", "m2"),
    judge="j",
    order=2,
    repeat=1,
    points=0.0,
    reply="m2 it is. [[A]]",
    user_prompt=prompt("pair"),
    prompt_name="pair-v1",
    prompt_hash="p",
    first_reply="Hm.",
    key="k",
    question_hash="q",
    answers_hash="a",
    cut_answers=("m2",),
    usage=Usage(10, 5, 0.5),
    timestamp=1.5,
)
SINGLE = replace(PAIR, mode="single", models=("m1",), order=1, points=7.5, user_prompt=prompt("single"))


@pytest.mark.parametrize(
    "judgment",
    [
        PAIR,
        SINGLE,
        replace(PAIR, order=1, points=0.5, first_reply=None, usage=Usage(10, None)),
        replace(PAIR, points=None),
        replace(SINGLE, points=None, cut_answers=()),
    ],
)
def test_round_trip(judgment: Judgment) -> None:
    row = judgment.to_row()
    assert Judgment.from_row(row, "row 1") == [judgment]
    assert row["status"] == ("scored" if judgment.is_readable else "unreadable")


def test_a_row_has_mt_benchs_fields() -> None:
    row = PAIR.to_row()
    assert (row["model_1"], row["model_2"], row["g2_winner"], row["judge"]) == ("m1", "m2", "model_2", ["j", "pair-v1"])
    assert (row["turn"], row["g2_judgment"]) == (1, "m2 it is. [[A]]")
    assert not any(name.startswith("g1_") for name in row)
    row = SINGLE.to_row()
    assert (row["model"], row["score"], row["turn"]) == ("m1", 7.5, 1)


def test_slot_tells_orders_and_repeats_apart() -> None:
    assert PAIR.slot == Slot("pair", "7", ("m1", "m2"), "j", 2, 1)
    assert len({PAIR.slot, replace(PAIR, order=1).slot, replace(PAIR, repeat=0).slot, SINGLE.slot}) == 4
    assert replace(PAIR, points=1.0, reply="x", key="other").slot == PAIR.slot


def test_swapped_names_the_same_winner_and_the_same_answers() -> None:
    swapped = PAIR.swapped()
    assert (swapped.models, swapped.order, swapped.points) == (("m2", "m1"), 1, 1.0)
    for judgment in (PAIR, swapped):
        assert (judgment.answer_text("m1"), judgment.answer_text("m2")) == ("of m1", "of m2")
    assert swapped.swapped() == PAIR
    assert SINGLE.answer_text("m1") == "one"


def test_a_row_with_both_orders_counts_its_usage_once() -> None:
    row = {"judge": ["gpt-4", "pair-v2"], "question_id": 1, "model_1": "a", "model_2": "b", "usage": {"usd": 1}}
    row |= {"g1_judgment": "x", "g2_judgment": "y", "g1_winner": "model_1", "g2_winner": "error"}
    first, second = Judgment.from_row(row, "row 1")
    assert (first.order, first.points, first.usage) == (1, 1.0, Usage(usd=1))
    assert (second.order, second.points, second.usage) == (2, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": 2}, "row 1: is of turn 2"),
        ({"g2_winner": "A"}, "row 1: g2_winner is 'A'"),
        ({"judge": ["j"]}, "row 1: not a judgment"),
        ({"question_id": None}, "row 1: question_id is 'None'"),
    ],
)
def test_other_rows_are_refused_by_place(change: dict[str, object], message: str) -> None:
    with pytest.raises(VicunaError, match=message):
        Judgment.from_row({**PAIR.to_row(), **change}, "row 1")
