"""The figures of an evaluation as one JSON object, computed from `score`'s results.

Before: `score`. After: `report`, which writes them to `--json` and makes its page of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId, content_hash
from vicuna.eval.reporting.score import Results, position_counts
from vicuna.statistics.intervals import LEVEL, NUM_RESAMPLES, SEED, Difference, Estimate


def figures(results: Results, words: Mapping[str, Mapping[QuestionId, int]]) -> dict[str, Any]:
    """All figures of the report as plain JSON values. `words`: model -> question -> the length of its answer.

    A model's `mean` is its share of the points from 0 to 1 (pair) or its score from 1 to 10 (single). A difference is
    wins less losses as a share of the questions, from -1 to 1 (pair), or of scores (single).
    """
    judgments = results.judgments
    cut: dict[str, set[QuestionId]] = {}
    for one in judgments:
        for model in one.cut_answers:
            cut.setdefault(model, set()).add(one.question_id)
    outcomes = _outcomes(results)
    return {
        "mode": results.mode,
        "judges": sorted({one.judge for one in judgments}),
        "num_questions": len(results.categories),
        "num_judgments": len(judgments),
        "findings": _findings(results),
        "models": {
            model: _model_figures(model, results, words, len(cut.get(model, ())), outcomes[model])
            for model in results.models
        },
        "categories": {
            category: {model: _plain(found) for model, found in of.items()}
            for category, of in results.by_category.items()
        },
        "differences": [
            {
                "model_1": pair[0],
                "model_2": pair[1],
                **_plain(found.estimate),
                "is_distinguishable": found.is_distinguishable,
                "smallest_detectable": found.smallest_detectable,
            }
            for pair, found in results.differences.items()
        ],
        "win_matrix": _win_matrix(results),
        "position": _position_figures(judgments) if results.mode == "pair" else None,
        "longer_answer_wins": _longer_wins(results, words),
        "unscored": {
            "unreadable_judgments": sum(not one.is_readable for one in judgments),
            "incomplete_questions": results.num_incomplete,
        },
        "usage": _usage(judgments),
        "hashes": {
            "prompts": sorted({one.prompt for one in judgments}),
            "questions": _hash_of({one.question_hash for one in judgments}),
            "answers": _hash_of({one.answers_hash for one in judgments}),
        },
        "statistics": {"level": LEVEL, "unit": "question", "resamples": NUM_RESAMPLES, "seed": SEED},
    }


def _outcomes(results: Results) -> dict[str, Counter[str]]:
    """Model -> how many of its comparisons it won, lost and tied."""
    counts: dict[str, Counter[str]] = {model: Counter() for model in results.models}
    for (first, second), of in results.outcomes.items():
        for points in of.values():
            counts[first]["wins" if points > 0.5 else "losses" if points < 0.5 else "ties"] += 1
            counts[second]["losses" if points > 0.5 else "wins" if points < 0.5 else "ties"] += 1
    return counts


def _model_figures(
    model: str,
    results: Results,
    words: Mapping[str, Mapping[QuestionId, int]],
    num_cut: int,
    outcomes: Mapping[str, int],
) -> dict[str, Any]:
    points = results.values[model]
    overall = results.overall.get(model)
    lengths = words.get(model, {}).values()
    found: dict[str, Any] = {
        **(_plain(overall) if overall else {"mean": None, "low": None, "high": None, "num_questions": 0}),
        "mean_words": fmean(lengths) if lengths else None,
        "num_cut_answers": num_cut,
    }
    if results.mode == "single":
        return {**found, "total": sum(points.values()) if points else None}
    return {**found, "wins": outcomes["wins"], "ties": outcomes["ties"], "losses": outcomes["losses"]}


def _findings(results: Results) -> list[str]:
    """What the evaluation shows, a sentence for each comparison; never empty."""
    if not results.overall:
        unreadable = sum(not one.is_readable for one in results.judgments)
        return [
            f"Nothing is scored: {unreadable} of {len(results.judgments)} verdicts cannot be read, so no question has "
            "all the verdicts that it needs."
        ]
    if len(results.models) == 1:
        (model,) = results.models
        one = results.overall[model]
        interval = "" if one.low is None else f" (interval {one.low:.2f} to {one.high:.2f})"
        return [f"The judge gives {model} {one.mean:.2f} of 10{interval} {_over(one.num_questions)}."]
    judged: Iterable[tuple[str, ...]] = combinations(results.models, 2)
    if results.mode == "pair":
        judged = dict.fromkeys(one.models for one in results.judgments)
    known = [set(pair) for pair in results.differences]
    return [
        *(_finding(pair, found, results.mode) for pair, found in results.differences.items()),
        *(f"{a} and {b}: no question has the verdicts to compare them." for a, b in judged if {a, b} not in known),
    ]


def _over(num_questions: int) -> str:
    return f"over {num_questions} question{'' if num_questions == 1 else 's'}"


def _finding(pair: tuple[str, str], difference: Difference, mode: str) -> str:
    """What a comparison shows, in a sentence; in pair mode the difference is given as the share of the points."""
    found, models = difference.estimate, pair
    if found.low is None or found.high is None:
        asked = "1 question is" if found.num_questions == 1 else f"{found.num_questions} questions are"
        return f"{pair[0]} and {pair[1]}: {asked} too few to compare them."
    asked = _over(found.num_questions)
    mean, low, high = found.mean, found.low, found.high
    if mean < 0:
        models, mean, low, high = (pair[1], pair[0]), -mean, -high, -low
    if mode == "pair":
        mean, low, high = ((1 + value) / 2 for value in (mean, low, high))
        size = f"{mean:.0%} of the points against {models[1]} (interval {low:.0%} to {high:.0%}) {asked}"
    else:
        size = f"{mean:.2f} points more than {models[1]} (interval {low:+.2f} to {high:+.2f}) {asked}"
    if difference.is_distinguishable:
        return f"The judge prefers {models[0]} to {models[1]}: {models[0]} has {size}."
    text = f"{models[0]} and {models[1]} are not distinguishable: {models[0]} has {size}."
    if (least := difference.smallest_detectable) is not None:
        shown = f"{min(1.0, (1 + least) / 2):.0%} of the points" if mode == "pair" else f"a difference of {least:.2f}"
        text += f" So many questions would show {shown} four times in five."
    return text


def _plain(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "num_questions": found.num_questions}


def _win_matrix(results: Results) -> dict[str, dict[str, float]]:
    """Model -> opponent -> the model's share of the points."""
    matrix: dict[str, dict[str, float]] = {model: {} for model in results.models}
    for (first, second), of in results.outcomes.items():
        share = fmean(of.values())
        matrix[first][second], matrix[second][first] = share, 1 - share
    return matrix if results.mode == "pair" else {}


def _position_figures(judgments: Sequence[Judgment]) -> dict[str, Any]:
    counts = position_counts(judgments)
    total = sum(counts.values())
    places = Counter(
        "tie" if one.points == 0.5 else "first" if (one.points == 1.0) == (one.order == 1) else "second"
        for one in judgments
        if one.points is not None
    )
    return {
        "num_orders": len({one.order for one in judgments}),
        "num_in_both_orders": total,
        "consistent": counts["consistent"],
        "always_first": counts["first"],
        "always_second": counts["second"],
        "tie_in_one_order": counts["tie_once"],
        "consistency": counts["consistent"] / total if total else None,
        "verdicts": {place: places[place] for place in ("first", "second", "tie")},
    }


def _longer_wins(results: Results, words: Mapping[str, Mapping[QuestionId, int]]) -> dict[str, Any] | None:
    """How often the longer of two answers won, of the comparisons (a question of a pair) that one of them won."""
    won = []
    for (first, second), of in results.outcomes.items():
        for question_id, points in of.items():
            both = [words.get(model, {}).get(question_id) for model in (first, second)]
            sizes = [size for size in both if size is not None]
            if points != 0.5 and len(sizes) == 2 and sizes[0] != sizes[1]:
                won.append((points > 0.5) == (sizes[0] > sizes[1]))
    return {"share": fmean(won), "num_comparisons": len(won)} if won else None


def _usage(judgments: Sequence[Judgment]) -> dict[str, Any]:
    usages = [one.usage for one in judgments if one.usage is not None]
    costs = [usage.usd for usage in usages if usage.usd is not None]
    return {
        "num_asked_again": sum(one.first_reply is not None for one in judgments),
        "prompt_tokens": sum(usage.prompt_tokens or 0 for usage in usages),
        "completion_tokens": sum(usage.completion_tokens or 0 for usage in usages),
        "num_without_usage": sum(usage.prompt_tokens is None for usage in usages),
        "usd": sum(costs) if len(costs) == len(usages) else None,
    }


def _hash_of(hashes: set[str | None]) -> str | None:
    """One hash for what all judgments saw; None if some did not record it."""
    return None if None in hashes else content_hash(sorted(map(str, hashes)))
