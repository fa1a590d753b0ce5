"""Each step of the cleaning: what it repairs, what it drops, what it must leave alone."""

from pathlib import Path

import pytest

from tests.data.builders import record, turns
from vicuna.data.options import DataOptions
from vicuna.data.pipeline import make_pipeline
from vicuna.data.step_kinds import Drop, Keep, Outcome, Record
from vicuna.data.steps.phrases import shipped_phrases

NAMES = ("html", "noise", "roles", "empty", "errors", "refusals", "blocked")
STEPS = {step.name: step for step in make_pipeline(DataOptions((), Path("out"), only=NAMES)).before}


def kept(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Keep), outcome
    return turns(outcome.record)


def rules(outcome: Outcome) -> list[tuple[str, int | None]]:
    findings = [*outcome.repairs, *([outcome.finding] if isinstance(outcome, Drop) else [])]
    return [(finding.rule, finding.turn) for finding in findings]


def run(step: str, *lines: str) -> Outcome:
    return STEPS[step].run(record(*lines))


def through_all(given: Record) -> Outcome:
    outcome: Outcome = Keep(given)
    for step in STEPS.values():
        assert isinstance(outcome, Keep)
        outcome = step.run(outcome.record)
    return outcome


def test_html_answers_become_markdown_and_questions_stay() -> None:
    question = "u: \t<p>why <b>this</b>?</p>\n\tvector<int> __init__  "
    assert kept(run("html", question, "a: <p>Because <em>so</em>.</p>")) == [question, "a: Because *so*."]


def test_answers_of_other_shapes_are_never_read_as_html() -> None:
    given = record("u: a paragraph in HTML", "a: <p>Hello</p>", shape="alpaca")
    assert kept(STEPS["html"].run(given)) == ["u: a paragraph in HTML", "a: <p>Hello</p>"]


def test_html_nested_beyond_sense_drops_the_record() -> None:
    assert rules(run("html", "u: q", "a: " + "<div>" * 500 + "</div>")) == [("broken_html", 1)]


def test_noise_goes_from_answers_only() -> None:
    outcome = run("noise", "u: a\x00\r\nCopy code", "a: \r\n  one\x00\r\ntwo  \nRegenerate response\n")
    assert kept(outcome) == ["u: a\x00\r\nCopy code", "a: " + "  one\ntwo"]
    assert rules(outcome) == [("control_characters", 1), ("page_words", 1)]


def test_button_words_stay_where_they_are_the_answer() -> None:
    assert kept(run("noise", "u: what does it say?", "a: Copy code")) == ["u: what does it say?", "a: Copy code"]


@pytest.mark.parametrize(
    ("lines", "expected", "found"),
    [
        (["a: hi", "u: q", "a: r"], ["u: q", "a: r"], [("leading_answer", 0)]),
        (["u: q", "a: r", "u: thanks"], ["u: q", "a: r"], [("trailing_question", 2)]),
        (["u: q", "u: more", "a: r"], ["u: q\n\nmore", "a: r"], [("merged_turns", 1)]),
        (["u: q", "u: q", "a: r"], ["u: q", "a: r"], [("repeated_turn", 1)]),
        (["u: q", "a: r", "a: s"], ["u: q", "a: r\n\ns"], [("merged_turns", 2)]),
        (["u: q", "a: ", "a: s"], ["u: q", "a: s"], [("merged_turns", 2)]),
        (["s: be kind", "u: q", "a: r"], ["s: be kind", "u: q", "a: r"], []),
        (["u: q", "s: be kind", "a: r"], ["u: q", "a: r"], [("misplaced_system", 1)]),
        (["u: q", "a: call", "t: 1", "t: 2", "a: r"], ["u: q", "a: call", "t: 1", "t: 2", "a: r"], []),
    ],
)
def test_roles_are_repaired(lines: list[str], expected: list[str], found: list[tuple[str, int]]) -> None:
    outcome = run("roles", *lines)
    assert kept(outcome) == expected
    assert rules(outcome) == found


@pytest.mark.parametrize(
    ("lines", "rule"),
    [([], "no_turns"), (["u: q"], "no_answer"), (["a: r"], "no_question"), (["s: x", "a: r", "u: q"], "no_answer")],
)
def test_roles_that_cannot_be_repaired_drop_the_record(lines: list[str], rule: str) -> None:
    assert rules(run("roles", *lines))[-1][0] == rule
    assert isinstance(run("roles", *lines), Drop)


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
    outcome = run(step, "s: x", "u: one", "a: fine", "u: two", f"a: {answer}", "u: three", "a: fine")
    assert kept(outcome) == ["s: x", "u: one", "a: fine"]
    assert rules(outcome) == [(rule, 4)]


@pytest.mark.parametrize(("step", "answer", "rule"), BAD_ANSWERS)
def test_a_bad_first_answer_drops_the_record(step: str, answer: str, rule: str) -> None:
    outcome = run(step, "u: one", f"a: {answer}", "u: two", "a: fine")
    assert isinstance(outcome, Drop)
    assert (outcome.finding.rule, outcome.finding.turn) == (rule, 1)


def test_an_empty_question_cuts_before_it() -> None:
    assert kept(run("empty", "u: q", "a: r", "u:  ", "a: what?")) == ["u: q", "a: r"]


@pytest.mark.parametrize(
    "answer",
    [
        "Network error handling in Go takes three lines.",
        "Access denied\n\nis what the page says when the cookie is missing.\n\nSet it.",
        "HTTP 429 means: too many requests in a short time.",
        "Your code catches it:\n\n```\nNetwork error\n```",
        "I'm sorry to hear that. Here is what helps.",
        "I'm sorry, but I cannot provide a date. " + "But here is what is known. " * 30,
        "OpenAI trained GPT-4; nobody says that I am one of them.",
        "It prints `I am ChatGPT` on the screen.",
        "I am Claude Monet, and I paint what I see.",
        "I am Vicuna, not ChatGPT, and I was not made by OpenAI.",
    ],
)
def test_good_answers_that_look_bad_stay(answer: str) -> None:
    assert kept(through_all(record("u: q", f"a: {answer}", shape="messages"))) == ["u: q", f"a: {answer.strip()}"]


def test_evidence_names_the_turn_of_the_file_after_earlier_repairs() -> None:
    first = run("roles", "a: hi", "u: one", "a: fine", "u: two", "a: Network error")
    assert isinstance(first, Keep)
    assert rules(STEPS["errors"].run(first.record)) == [("error_message", 4)]


@pytest.mark.parametrize("phrase", shipped_phrases("blocked"))
def test_every_blocked_phrase_is_found_by_its_quick_look(phrase: str) -> None:
    answer = f"Well.\n{phrase.upper().replace(' ', '  ')} and so on."
    assert rules(run("blocked", "u: q", f"a: {answer}")) == [("other_identity", 1)]


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I don't have personal taste. However, Python is a popular choice for beginners.",
        "I'm sorry, but I can't provide a live price. You can use `yfinance` for that: `yf.Ticker('X').info`.",
        "As an AI language model, I don't have a body, but here are some stretches: toe touches, lunges.",
    ],
)
def test_a_short_answer_that_goes_on_to_help_is_no_refusal(answer: str) -> None:
    assert kept(run("refusals", "u: Which one?", f"a: {answer}")) == ["u: Which one?", f"a: {answer}"]
