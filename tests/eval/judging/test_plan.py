"""The calls of a run: each once, under keys that change with what the verdict depends on; and the budget."""

import asyncio
from dataclasses import replace

import pytest

from vicuna.errors import VicunaError
from vicuna.eval.answer import Answer
from vicuna.eval.ask.runner import OutOfBudget
from vicuna.eval.judging.plan import Budget, Call, plan_calls
from vicuna.eval.judging.prompts import Mode, parse_sections
from vicuna.eval.questions import Question, QuestionId, content_hash

QUESTIONS = [Question(1, "One?", "a"), Question(2, "Two?", "b", reference="2")]
Answers = dict[str, dict[QuestionId, Answer]]
ANSWERS: Answers = {
    model: {n: Answer(model=model, question_id=n, text=f"{model} says {n}") for n in (1, 2)} for model in ("b", "a")
}


def plan(
    mode: Mode = "pair",
    answers: Answers = ANSWERS,
    *,
    judge: str = "j",
    temperature: float = 0.0,
    both_orders: bool = True,
    repeats: int = 1,
) -> list[Call]:
    return plan_calls(
        mode, QUESTIONS, answers, judge=judge, temperature=temperature, both_orders=both_orders, repeats=repeats
    )


@pytest.mark.parametrize(
    ("mode", "both_orders", "repeats", "count"),
    [("pair", True, 1, 4), ("pair", False, 1, 2), ("pair", True, 3, 12), ("single", True, 1, 4)],
)
def test_each_call_once(mode: Mode, both_orders: bool, repeats: int, count: int) -> None:
    calls = plan(mode, both_orders=both_orders, repeats=repeats)
    assert len(calls) == len({call.key for call in calls}) == len({call.slot for call in calls}) == count
    assert all(call.models == tuple(sorted(call.models)) for call in calls)


def test_the_second_order_shows_the_second_model_first() -> None:
    first, second = plan()[:2]
    for call, answer in ((first, "a says 1"), (second, "b says 1")):
        assert parse_sections(call.messages(structured=True)[1].content)["answer A"] == answer


def test_a_question_with_a_reference_shows_it() -> None:
    shown = [parse_sections(call.messages(structured=True)[1].content).get("reference") for call in plan("single")]
    assert shown == [None, None, "2", "2"]


def test_a_key_changes_with_all_that_the_verdict_depends_on() -> None:
    keys = {call.key for call in plan()}
    reworded = {**ANSWERS, "a": {n: replace(answer, text="x") for n, answer in ANSWERS["a"].items()}}
    for other in (plan(judge="k"), plan(temperature=0.5), plan(answers=reworded)):
        assert keys.isdisjoint(call.key for call in other)
    assert keys == {call.key for call in plan(answers=dict(reversed(ANSWERS.items())))}


def test_what_not_every_model_answered_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    calls = plan(answers={**ANSWERS, "a": {1: ANSWERS["a"][1]}})
    assert {call.question.question_id for call in calls} == {1}
    assert "1 questions are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"a": ANSWERS["a"]}, "needs answers of two models or more; found a"),
        ({**ANSWERS, "a": {9: ANSWERS["a"][1]}}, "no question was answered by every model"),
        (
            {**ANSWERS, "a": {1: replace(ANSWERS["a"][1], question_hash=content_hash("Other?"))}},
            "a answered question 1 in another wording",
        ),
    ],
)
def test_answers_that_do_not_fit(answers: Answers, message: str) -> None:
    with pytest.raises(VicunaError, match=message):
        plan(answers=answers)


async def test_the_worst_case_of_a_call_is_set_aside() -> None:
    call = plan()[0]
    budget = Budget(None, (0.0, 1000.0), max_tokens=100)
    budget.max_usd = 0.3  # a call is two replies of 0.10 dollars at worst
    events: list[str] = []

    async def second() -> None:
        async with budget.reserve(call):
            events.append("second")

    async with budget.reserve(call):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        budget.spent_usd += 0.05
        events.append("first")
    await waiting
    assert events == ["first", "second"]
    budget.spent_usd = 0.15
    with pytest.raises(OutOfBudget, match=r"0\.1500 dollars are spent and the next call could pass --max-usd 0\.3"):
        await second()
