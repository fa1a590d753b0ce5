"""Conversations cut before their first bad round."""

from collections.abc import Iterator

from tests.data.builders import findings, kept, record
from vicuna.data.step_kinds import Drop, Finding, Keep, Record
from vicuna.data.steps.rounds import answers_of, cut_rounds


def _bad(record: Record) -> Iterator[tuple[int, Finding]]:
    for index, turn, text in answers_of(record):
        if text == "bad":
            yield index, Finding("bad", text, turn)


def test_the_rounds_before_the_first_bad_one_stay() -> None:
    given = record("s: x", "u: a", "a: b", "u: c", "a: call", "t: d", "a: bad", "u: e", "a: bad")
    outcome = cut_rounds(_bad)(given)
    assert kept(outcome) == ["s: x", "u: a", "a: b"]
    assert findings(outcome) == [("bad", 6)]


def test_a_conversation_without_a_bad_round_is_not_changed() -> None:
    given = record("u: bad", "a: good")
    assert cut_rounds(_bad)(given) == Keep(given)


def test_without_an_answer_before_the_bad_one_the_record_is_dropped() -> None:
    assert isinstance(cut_rounds(_bad)(record("s: x", "u: a", "a: bad", "u: b", "a: c")), Drop)
    assert isinstance(cut_rounds(_bad)(record("a: bad")), Drop)


def test_answers_have_the_turn_of_the_file() -> None:
    given = record("u: a", "a: b", "u: c", "a: d").select([2, 3])
    assert list(answers_of(given)) == [(1, 3, "d")]
