"""Judgments to results: the points of each model on each question, and estimates with intervals over the questions.

After `reading`, before `figures`.
Every question counts once for a pair of models: a verdict gives a model 1, 1/2 or 0, the verdicts of an order are
averaged, then the two orders, then the judges. So a judge that always prefers the first place makes only ties (both
orders: Zheng et al., "Judging LLM-as-a-Judge", 2023, arXiv:2306.05685, section 3.4).

Only complete questions count. Where one order cannot be read, the other would carry the bias of its place; without one
of the judges a score would show the other's severity; without one of its opponents a model's points would depend on who
is left. Such a question is left out of that mean, and `num_incomplete` counts those left out for want of a verdict.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.judging.prompts import Mode
from vicuna.eval.questions import QuestionId
from vicuna.eval.verdict import MAX_SCORE, MIN_SCORE
from vicuna.statistics.intervals import Difference, Estimate, estimate_difference, estimate_mean

Pair = tuple[str, str]
# Categories that get an interval each, the largest ones; more of them say nothing that a reader could take in.
MAX_CATEGORIES = 200


@dataclass(frozen=True)
class Results:
    """The figures. `points` are shares from 0 to 1 in pair mode, scores from 1 to 10 in single mode.

    Attributes:
        by_question: question -> its judgments.
        values: model -> question -> its points there (pair mode: the mean over its opponents).
        outcomes: pair -> question -> points of the pair's first model; empty in single mode.
        differences: by pair; only pairs that have a question in common.
        num_incomplete: questions of a pair or model left out because a verdict is unreadable or missing.
    """

    mode: Mode
    judgments: list[Judgment]
    by_question: dict[QuestionId, list[Judgment]]
    models: list[str]
    categories: dict[QuestionId, str]
    values: dict[str, dict[QuestionId, float]]
    outcomes: dict[Pair, dict[QuestionId, float]]
    num_incomplete: int
    overall: dict[str, Estimate]
    by_category: dict[str, dict[str, Estimate]]
    differences: dict[Pair, Difference]


def summarize(judgments: Sequence[Judgment]) -> Results:
    """The figures of some judgments of one mode; a model without a readable verdict has none."""
    mode = judgments[0].mode
    models = list(dict.fromkeys(model for one in judgments for model in one.models))
    in_order = sorted(judgments, key=lambda one: (isinstance(one.question_id, str), one.question_id))
    categories: dict[QuestionId, str] = {}
    by_question: dict[QuestionId, list[Judgment]] = {}
    for one in in_order:
        categories[one.question_id] = one.category
        by_question.setdefault(one.question_id, []).append(one)
    outcomes: dict[Pair, dict[QuestionId, float]] = {}
    values: dict[str, dict[QuestionId, float]]
    points, num_incomplete = _points_by_question(judgments)
    if mode == "pair":
        outcomes = {(names[0], names[1]): of for names, of in points.items()}
        values = _means_over_opponents(models, outcomes)
        bounds, gaps = (0.0, 1.0), {pair: [2 * p - 1 for p in of.values()] for pair, of in outcomes.items()}
    else:
        values = {model: points.get((model,), {}) for model in models}
        bounds = (MIN_SCORE, MAX_SCORE)
        gaps = {
            (a, b): [values[a][q] - values[b][q] for q in values[a] if q in values[b]]
            for a, b in combinations(models, 2)
        }
    gaps = {pair: gap for pair, gap in gaps.items() if gap}
    width = (bounds[1] - bounds[0]) if mode == "single" else 1.0
    return Results(
        mode=mode,
        judgments=in_order,
        by_question=by_question,
        models=sorted(models, key=lambda model: -fmean(values[model].values()) if values[model] else 0.0),
        categories=categories,
        values=values,
        outcomes=outcomes,
        num_incomplete=num_incomplete,
        overall={model: estimate_mean(list(of.values()), bounds=bounds) for model, of in values.items() if of},
        by_category=_by_category(categories, values, bounds),
        differences={
            pair: estimate_difference(gap, bounds=(-width, width), num_comparisons=len(gaps))
            for pair, gap in gaps.items()
        },
    )


def position_counts(judgments: Iterable[Judgment]) -> Counter[str]:
    """How the verdicts of the two orders go together, over questions, pairs, judges and repeats.

    Keys: `consistent`; `first` and `second`, where the judge preferred a place, whoever stood there; `tie_once`, where
    one of the verdicts is a tie.
    """
    both: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    for one in judgments:
        if one.points is not None:
            both[one.question_id, one.models, one.judge, one.repeat][one.order] = one.points
    counts: Counter[str] = Counter()
    for points in both.values():
        if len(points) == 2:
            if points[1] == points[2]:
                counts["consistent"] += 1
            elif 0.5 in points.values():
                counts["tie_once"] += 1
            else:
                counts["first" if points[1] == 1.0 else "second"] += 1
    return counts


def _points_by_question(
    judgments: Sequence[Judgment],
) -> tuple[dict[tuple[str, ...], dict[QuestionId, float]], int]:
    """Models -> question -> points of the first of them; and how many such places lack a verdict that others have."""
    needed: dict[tuple[str, ...], set[tuple[str, int]]] = defaultdict(set)
    found: dict[tuple[tuple[str, ...], QuestionId], dict[tuple[str, int], list[float]]] = defaultdict(dict)
    for one in judgments:
        # Scores of different models are compared, so they must be by the same judges.
        needed[one.models if one.mode == "pair" else ()].add((one.judge, one.order))
        read = found[one.models, one.question_id].setdefault((one.judge, one.order), [])
        if one.points is not None:
            read.append(one.points)
    points: dict[tuple[str, ...], dict[QuestionId, float]] = defaultdict(dict)
    for (models, question_id), verdicts in found.items():
        wanted = needed.get(models, needed.get((), set()))
        if all(verdicts.get(place) for place in wanted):
            by_judge: dict[str, list[float]] = defaultdict(list)
            for (judge, _), read in verdicts.items():
                by_judge[judge].append(fmean(read))
            points[models][question_id] = fmean(map(fmean, by_judge.values()))
    return dict(points), len(found) - sum(map(len, points.values()))


def _by_category(
    categories: Mapping[QuestionId, str], values: Mapping[str, Mapping[QuestionId, float]], bounds: tuple[float, float]
) -> dict[str, dict[str, Estimate]]:
    """Category -> model -> its mean there, with an interval in the `MAX_CATEGORIES` largest of them."""
    found: dict[str, dict[str, list[float]]] = {category: {} for category in categories.values()}
    for model, of in values.items():
        for question_id, value in of.items():
            found[categories[question_id]].setdefault(model, []).append(value)
    sizes = Counter(categories.values())
    largest = {category for category, _ in sizes.most_common(MAX_CATEGORIES)}
    return {
        category: {
            model: estimate_mean(here, bounds=bounds)
            if category in largest
            else Estimate(fmean(here), None, None, len(here))
            for model, here in of.items()
        }
        for category, of in found.items()
    }


def _means_over_opponents(
    models: Sequence[str], outcomes: Mapping[Pair, Mapping[QuestionId, float]]
) -> dict[str, dict[QuestionId, float]]:
    """Model -> question -> its mean points against its opponents, where it was compared with all of them."""
    against: dict[str, list[dict[QuestionId, float]]] = {model: [] for model in models}
    for (first, second), of in outcomes.items():
        against[first].append(dict(of))
        against[second].append({question_id: 1 - points for question_id, points in of.items()})
    return {model: _mean_where_all_are(of) for model, of in against.items()}


def _mean_where_all_are(against: Sequence[Mapping[QuestionId, float]]) -> dict[QuestionId, float]:
    shared = [question_id for question_id in against[0] if all(question_id in of for of in against)] if against else []
    return {question_id: fmean(of[question_id] for of in against) for question_id in shared}
