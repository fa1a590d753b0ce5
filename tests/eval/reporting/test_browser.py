"""A question with its answers and verdicts, in words and as markup."""

import pytest

from tests.eval.builders import row
from vicuna.eval.answer import Answer
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId
from vicuna.eval.reporting.browser import answer_texts, outcome, question_block, verdict_words
from vicuna.eval.reporting.score import Results, summarize


def results(*winners: str | None) -> Results:
    """Question 1, judged in the first order and in the swapped one."""
    rows = [row(1, order, winner) for order, winner in enumerate(winners, 1)]
    return summarize([one for each in rows for one in Judgment.from_row(each, "row")])


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        (("model_1", "model_1"), "m1 wins"),
        (("model_1", "tie"), "m1 wins narrowly"),
        (("model_1", "model_2"), "tie"),
        (("model_1", None), "unscored"),
    ],
)
def test_outcome_in_words(winners: tuple[str | None, ...], expected: str) -> None:
    assert outcome(1, results(*winners)) == expected


def test_verdict_in_words() -> None:
    words = [verdict_words(one) for one in results("model_1", "model_2").judgments]
    assert words == ["m1", "m2"]
    assert [verdict_words(one) for one in results("tie", None).judgments] == ["tie", "unreadable"]
    single = {"question_id": 1, "model": "m", "judge": ["j", "s"], "judgment": "x", "score": 7.5}
    assert [verdict_words(one) for one in Judgment.from_row(single, "row")] == ["7.5 of 10"]


def test_a_text_is_taken_from_the_answer_file_where_the_prompt_is_not_recorded() -> None:
    found = results("tie", "tie")
    answers: dict[str, dict[QuestionId, Answer]] = {"m1": {1: Answer(model="m1", question_id=1, text="<b>mine</b>")}}
    texts = answer_texts(found.judgments, answers)
    assert texts == {"m1": {1: "<b>mine</b>"}}
    block = question_block(1, found, texts)
    assert "&lt;b&gt;mine&lt;/b&gt;" in block and "<b>" not in block
    assert block.count("not recorded; give the answer file") == 1, "of m2"
    assert block.startswith("<details>\n<summary>1 · math · tie</summary>")
