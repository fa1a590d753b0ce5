"""The question browser of the report's page: each question with its answers side by side and the judge's replies.

After `score`; `report` puts it at the end of its page. The texts come from the prompts that the judge saw, and from the
answer files where a judgment was kept without its prompt.
"""

from collections.abc import Mapping, Sequence

from vicuna.eval.answer import Answer
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId
from vicuna.eval.reporting.score import Results
from vicuna.eval.verdict import explanation
from vicuna.io.markup import Markup, fill


def answer_texts(
    judgments: Sequence[Judgment], answers: Mapping[str, Mapping[QuestionId, Answer]]
) -> dict[str, dict[QuestionId, str]]:
    """Model -> question -> the answer that was judged."""
    texts: dict[str, dict[QuestionId, str]] = {}
    for one in judgments:
        for model in one.models:
            text = one.answer_text(model)
            if text is None and (answer := answers.get(model, {}).get(one.question_id)):
                text = answer.text
            if text is not None:
                texts.setdefault(model, {})[one.question_id] = text
    return texts


def question_block(question_id: QuestionId, results: Results, texts: Mapping[str, Mapping[QuestionId, str]]) -> Markup:
    """One question as markup: closed, its category and outcome; open, all that was said."""
    judgments = [one for one in results.judgments if one.question_id == question_id]
    return fill(
        "eval/reporting/question.html",
        id=question_id,
        category=results.categories[question_id],
        outcome=outcome(question_id, results),
        shown=next((one.sections for one in judgments if one.sections), {}),
        answers={model: texts.get(model, {}).get(question_id) for model in results.models},
        verdicts=[
            {
                "words": verdict_words(one),
                "judge": one.judge,
                "place": one.models[0] if one.mode == "single" else f"A is {_first(one)}",
                "repeat": one.repeat,
                "explanation": explanation(one.reply),
            }
            for one in judgments
        ],
    )


def outcome(question_id: QuestionId, results: Results) -> str:
    """A question's outcome in a few words."""
    points = {model: of[question_id] for model, of in results.values.items() if question_id in of}
    if not points:
        return "unscored"
    if results.mode == "pair" and len(results.models) == 2:
        best = max(points, key=lambda model: points[model])
        return "tie" if points[best] == 0.5 else f"{best} wins" + (" narrowly" if points[best] < 1 else "")
    ranked = sorted(points.items(), key=lambda item: -item[1])
    return ", ".join(f"{model} {value:.3g}" for model, value in ranked)


def verdict_words(one: Judgment) -> str:
    """A single verdict in a few words."""
    if one.points is None:
        return "unreadable"
    if one.mode == "single":
        return f"{one.points:g} of 10"
    return "tie" if one.points == 0.5 else one.models[0] if one.points == 1.0 else one.models[1]


def _first(one: Judgment) -> str:
    """The model whose answer stood in the first place."""
    return one.models[0] if one.order == 1 else one.models[-1]
