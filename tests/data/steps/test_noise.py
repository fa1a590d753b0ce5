"""Control characters and button words out of answers."""

from pathlib import Path

from tests.data.builders import clean_answer, findings, kept, run_step, turns, write_lines
from vicuna.data.step_kinds import Keep


def test_noise_goes_from_answers_only() -> None:
    outcome = run_step("noise", "u: a\x00\r\nCopy code", "a: \r\n  one\x00\r\ntwo  \nRegenerate response\n")
    assert kept(outcome) == ["u: a\x00\r\nCopy code", "a: " + "  one\ntwo"]
    assert findings(outcome) == [("control_characters", 1), ("page_words", 1)]


def test_button_words_stay_where_they_are_the_answer() -> None:
    assert kept(run_step("noise", "u: what does it say?", "a: Copy code")) == ["u: what does it say?", "a: Copy code"]


def test_leftovers(tmp_path: Path) -> None:
    own = write_lines(tmp_path / "own.txt", "Read aloud", " # 1 answer")
    answer = "Copy code\nYes.\n# 1 answer\nread aloud"
    for given, expected in (((own,), "Copy code\nYes."), (("shipped", own), "Yes."), (("none",), answer)):
        outcome = clean_answer("noise", answer, leftovers=given)
        assert isinstance(outcome, Keep)
        assert turns(outcome.record)[-1] == f"a: {expected}"
