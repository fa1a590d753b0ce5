"""Empty answers, error messages, refusals and blocked phrases: found, and not found in good answers."""

from pathlib import Path

import pytest

from tests.data.builders import (
    OWN_REFUSAL,
    SHIPPED_REFUSAL,
    clean_answer,
    data_options,
    default_step,
    findings,
    kept,
    record,
    repair_rules,
    run_step,
    write_lines,
)
from vicuna.data.pipeline import make_pipeline
from vicuna.data.step_kinds import Drop, Keep
from vicuna.data.steps.phrases import shipped_phrases

BAD_ANSWERS = [
    ("empty", " \n", "empty_answer"),
    ("errors", "Too many requests in 1 hour. Try again later.", "error_message"),
    ("errors", "Half an answer, then it\n\nnetwork error", "error_message"),
    ("errors", "**Something went wrong. If this issue persists please contact us.**", "error_message"),
    ("refusals", "I’m sorry, but I can’t assist with that request.", "refusal"),
    ("blocked", "As a language model trained by OpenAI, I know.", "other_identity"),
]


@pytest.mark.parametrize(("step", "answer", "rule"), BAD_ANSWERS)
def test_a_bad_answer_cuts_its_round_and_all_after_it(step: str, answer: str, rule: str) -> None:
    outcome = run_step(step, "s: x", "u: one", "a: fine", "u: two", f"a: {answer}", "u: three", "a: fine")
    assert kept(outcome) == ["s: x", "u: one", "a: fine"]
    assert findings(outcome) == [(rule, 4)]


@pytest.mark.parametrize(("step", "answer", "rule"), BAD_ANSWERS)
def test_a_bad_first_answer_drops_the_record(step: str, answer: str, rule: str) -> None:
    outcome = run_step(step, "u: one", f"a: {answer}", "u: two", "a: fine")
    assert isinstance(outcome, Drop)
    assert (outcome.finding.rule, outcome.finding.turn) == (rule, 1)


def test_an_empty_question_cuts_before_it() -> None:
    assert kept(run_step("empty", "u: q", "a: r", "u:  ", "a: what?")) == ["u: q", "a: r"]


def test_evidence_names_the_turn_of_the_file_after_earlier_repairs() -> None:
    first = run_step("roles", "a: hi", "u: one", "a: fine", "u: two", "a: Network error")
    assert isinstance(first, Keep)
    assert findings(default_step("errors").run(first.record)) == [("error_message", 4)]


@pytest.mark.parametrize("phrase", shipped_phrases("blocked"))
def test_every_blocked_phrase_is_found_by_its_quick_look(phrase: str) -> None:
    answer = f"Well.\n{phrase.upper().replace(' ', '  ')} and so on."
    assert findings(run_step("blocked", "u: q", f"a: {answer}")) == [("other_identity", 1)]


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I don't have personal taste. However, Python is a popular choice for beginners.",
        "I'm sorry, but I can't provide a live price. You can use `yfinance` for that: `yf.Ticker('X').info`.",
        "As an AI language model, I don't have a body, but here are some stretches: toe touches, lunges.",
    ],
)
def test_a_short_answer_that_goes_on_to_help_is_no_refusal(answer: str) -> None:
    assert kept(run_step("refusals", "u: Which one?", f"a: {answer}")) == ["u: Which one?", f"a: {answer}"]


def test_turns_of_refusals(tmp_path: Path) -> None:
    answer = f"{SHIPPED_REFUSAL} Ask the town hall."
    assert repair_rules(clean_answer("refusals", answer)) == ["refusal"]
    own = write_lines(tmp_path / "own.txt", "ask the town hall")
    assert repair_rules(clean_answer("refusals", answer, refusal_turns=("shipped", own))) == []
    answer = f"{SHIPPED_REFUSAL} However, here is a map."
    assert repair_rules(clean_answer("refusals", answer)) == []
    assert repair_rules(clean_answer("refusals", answer, refusal_turns=("none",))) == ["refusal"]


def test_blocked_phrases_of_ones_own_have_a_rule_of_their_own(tmp_path: Path) -> None:
    own = ("shipped", write_lines(tmp_path / "own.txt", "the Acme helper’s", "私はアクメ"))
    for answer in ("I am\nthe  acme\nHELPER's twin.", "はい。私はアクメです。"):
        assert repair_rules(clean_answer("blocked", answer, blocked=own)) == ["blocked_phrase"]
        assert repair_rules(clean_answer("blocked", answer)) == []
    assert repair_rules(clean_answer("blocked", "I am ChatGPT.", blocked=own)) == ["other_identity"]
    assert repair_rules(clean_answer("blocked", "I am ChatGPT.", blocked=own[1:])) == []
    assert repair_rules(clean_answer("blocked", "`the Acme helper's` and the breathe Acme helper's", blocked=own)) == []


@pytest.mark.parametrize(
    ("answer", "is_found"),
    [
        ("The gate is shut.", True),
        ("**the gate is shut**", True),
        ("Half an answer\n\nThe gate is shut", True),
        ("The gate is shut\n\nand this explains why.", False),
        ("The gate is shut for a reason.", False),
        ("Ticket 7: gone", False),
        ("Ticket expired at noon, log in.", True),
        ("Ticket expired at noon.\n\nThe rest of the page", True),
        ("Ticket expired", True),
        ("Network error", False),
    ],
)
def test_error_messages_whole_and_by_their_beginning(tmp_path: Path, answer: str, is_found: bool) -> None:
    own = (write_lines(tmp_path / "own.txt", "The gate is shut.", "ticket expired*"),)
    assert repair_rules(clean_answer("errors", answer, error_messages=own)) == ["error_message"] * is_found


def test_a_bad_first_answer_still_drops_the_record(own: str) -> None:
    (step,) = make_pipeline(data_options(only=("refusals",), refusals=(own,))).before
    assert isinstance(step.run(record("u: q", f"a: {OWN_REFUSAL}")), Drop)
