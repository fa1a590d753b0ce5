"""The question browser of the report's page: each question with its answers side by side and the judge's replies.

After `score`; `report` puts it at the end of its page. The texts come from the prompts that the judge saw, and from the
answer files where a judgment was kept without its prompt.
"""

import html
from collections.abc import Mapping, Sequence

from vicuna.eval.answer import Answer
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId
from vicuna.eval.reporting.score import Results
from vicuna.eval.verdict import explanation

GRID = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:0 1.2rem"
NO_ANSWER = "not recorded; give the answer file with --answers"


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


def question_block(question_id: QuestionId, results: Results, texts: Mapping[str, Mapping[QuestionId, str]]) -> str:
    """One question as a `<details>` element: its category and outcome, and inside all answers and verdicts."""
    judgments = [one for one in results.judgments if one.question_id == question_id]
    shown = next((one.sections for one in judgments if one.sections), {})
    parts = [_text("Question", shown.get("question"), "not recorded")]
    if "reference" in shown:
        parts.append(f"<details><summary>Reference answer</summary>{_pre(shown['reference'])}</details>")
    columns = "".join(
        f"<div>{_text(model, texts.get(model, {}).get(question_id), NO_ANSWER)}</div>" for model in results.models
    )
    parts.append(f'<div style="{GRID}">{columns}</div>')
    parts.append("<h3>Verdicts</h3>")
    parts += [_verdict(one) for one in judgments]
    summary = (
        f"{question_id} · {html.escape(results.categories[question_id])} · {html.escape(outcome(question_id, results))}"
    )
    return f"<details><summary>{summary}</summary>{''.join(parts)}</details>"


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


def _verdict(one: Judgment) -> str:
    first = one.models[0] if one.order == 1 else one.models[-1]
    place = one.models[0] if one.mode == "single" else f"A is {first}"
    repeat = f", repeat {one.repeat + 1}" if one.repeat else ""
    head = f"<strong>{html.escape(verdict_words(one))}</strong> <span class=faint>{html.escape(one.judge)}, "
    return f"<p>{head}{html.escape(place)}{repeat}</span></p>{_pre(explanation(one.reply))}"


def _text(title: str, text: str | None, otherwise: str) -> str:
    body = f"<p class=faint>{otherwise}</p>" if text is None else _pre(text)
    return f"<h3>{html.escape(title)}</h3>{body}"


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text.strip() else "<p class=faint>(empty)</p>"
