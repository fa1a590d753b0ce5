"""`python -m vicuna.eval report`: estimates with intervals, the judge's biases and every question, on one HTML page.

After `judge`, last of all. The page and the JSON file are made of the same `figures`, so they cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import UsageError
from vicuna.eval.judging.rule_judge import NAME as RULE_JUDGE
from vicuna.eval.reporting.browser import questions_markup
from vicuna.eval.reporting.figures import figures
from vicuna.eval.reporting.reading import Sources, read_judgments
from vicuna.eval.reporting.score import Results, summarize
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import write_json
from vicuna.io.log import warning
from vicuna.io.markup import Markup
from vicuna.io.terminal import write
from vicuna.options import option, parse
from vicuna.report_page import Page, radar_chart
from vicuna.statistics.intervals import LEVEL, MIN_QUESTIONS, NUM_RESAMPLES

# Rows of a table, sentences and names on the page and the terminal; what is beyond is counted, and is in --json.
MAX_SHOWN = 200
# More models make no matrix, and more categories no radar, that a reader could read.
MAX_MATRIX_MODELS = 40
MAX_RADAR_AXES = 30


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `python -m vicuna.eval report`."""

    judgments: tuple[Path, ...] = option(help="judgment files of one mode")
    answers: tuple[Path, ...] = option(
        (), help="the judged answers: checked, and shown where a judgment lacks its prompt"
    )
    output: Path = option(help="the page (HTML)")
    json: Path | None = option(None, help="write the same figures to this file")


def main(argv: list[str] | None = None) -> int:
    """Write the page and print the figures that matter most; 0 when it is written, scored or not."""
    description = "Turn judgments into estimates with intervals, on one page that needs nothing else."
    options = parse(ReportOptions, argv, prog="vicuna eval report", description=description)
    _refuse_overwriting(options)
    judgments, texts = read_judgments(options.judgments)
    texts.add_answers(options.answers, judgments)
    results = summarize(judgments)
    del judgments
    found = figures(results, texts.words())
    names = [path.name for path in options.judgments]
    found["hashes"]["judgment_files"] = {
        path.name if names.count(path.name) == 1 else str(path): sha256_file(path) for path in options.judgments
    }
    with Sources(options.judgments, options.answers, texts) as sources:
        questions = questions_markup(results, sources, options.output)
    build_page(results, found, questions).write(options.output)
    if options.json is not None:
        write_json(options.json, found)
    if not results.overall:
        warning(found["findings"][0])
    write(*_first(found["findings"], "findings"), f"report: {options.output}")
    return 0


def _refuse_overwriting(options: ReportOptions) -> None:
    taken = {path.resolve() for path in (*options.judgments, *options.answers)}
    for path in (options.output, options.json):
        if path is not None and path.resolve() in taken:
            raise UsageError(f"{path}: is used for something else in the same command; name another file")
        if path is not None:
            taken.add(path.resolve())


def build_page(results: Results, found: Mapping[str, Any], questions: Markup) -> Page:
    """The page: findings first, then the tables behind them, then every question or the links to them."""
    page = Page("Evaluation report")
    judges, is_pair = ", ".join(_first(found["judges"], "judges")), results.mode == "pair"
    kind = "pairs of answers compared" if is_pair else "answers scored from 1 to 10"
    page.add_paragraph(
        f"{found['num_questions']} questions, {kind}, {found['num_judgments']:,} judgments by {judges}.", faint=True
    )
    if RULE_JUDGE in found["judges"]:
        page.add_paragraph(
            f"{RULE_JUDGE} is a rule-based stand-in, not a judge: its verdicts show that the pipeline works and say "
            "nothing about quality."
        )
    for finding in _first(found["findings"], "findings"):
        page.add_html(Markup("<p><strong>{}</strong></p>").format(finding))
    _add_models(page, results, found)
    _add_categories(page, results, found)
    if is_pair:
        _add_bias(page, found)
    _add_record(page, found)
    page.add_heading("Questions, answers and verdicts")
    return page.add_html(questions)


def _add_models(page: Page, results: Results, found: Mapping[str, Any]) -> None:
    page.add_heading("Models")
    models: Mapping[str, Any] = found["models"]
    own = ["wins", "ties", "losses"] if results.mode == "pair" else ["total"]
    headers = ["model", "points" if results.mode == "pair" else "score", f"{LEVEL:.0%} interval", "questions", *own]
    rows = [
        [
            name,
            *_cells(one, results.mode),
            one["num_questions"],
            *("-" if one[key] is None else one[key] for key in own),
            *_length_cells(one),
        ]
        for name, one in list(models.items())[:MAX_SHOWN]
    ]
    _add_rest(page, len(models), "models")
    page.add_table([*headers, "words per answer", "cut answers"], rows, numeric=range(1, len(headers) + 2))
    if results.mode == "pair":
        explained = (
            "Points: the share of a model's comparisons that it wins, a tie counting half; each question is judged in "
            "both orders where both were asked for, and won if the verdicts together favour the model."
        )
    else:
        explained = "Score: the mean over questions; total: their sum."
    page.add_paragraph(
        f"{explained} Intervals: seeded bootstrap over questions ({NUM_RESAMPLES:,} resamples), none below "
        f"{MIN_QUESTIONS} questions. Cut answers end at the token limit.",
        faint=True,
    )
    if len(results.differences) > 1:
        page.add_heading("Differences", 3)
        rows = [
            [
                f"{one['model_1']} - {one['model_2']}",
                f"{one['mean']:+.2f}",
                _interval(one, ".2f"),
                "yes" if one["is_distinguishable"] else "not distinguishable",
                "-" if one["smallest_detectable"] is None else f"{one['smallest_detectable']:.2f}",
            ]
            for one in found["differences"][:MAX_SHOWN]
        ]
        headers = ["pair", "difference", "interval", "distinguishable", "smallest detectable"]
        page.add_table(headers, rows, numeric=(1, 2, 4))
        _add_rest(page, len(found["differences"]), "pairs")
        page.add_paragraph("The intervals share the 5% of error among the pairs (Bonferroni).", faint=True)
    matrix: Mapping[str, Mapping[str, float]] = found["win_matrix"]
    if any(matrix.values()) and len(matrix) <= MAX_MATRIX_MODELS:
        page.add_heading("Win matrix", 3)
        cells = [
            [row, *(f"{matrix[row][column]:.0%}" if column in matrix[row] else "" for column in results.models)]
            for row in results.models
        ]
        page.add_table(["points of ... against", *results.models], cells, numeric=range(1, len(cells) + 1))


def _add_categories(page: Page, results: Results, found: Mapping[str, Any]) -> None:
    page.add_heading("Categories")
    categories: Mapping[str, Mapping[str, Any]] = found["categories"]
    complete = [name for name, of in categories.items() if all(model in of for model in results.models)]
    if 3 <= len(complete) <= MAX_RADAR_AXES:
        is_pair = results.mode == "pair"
        series: dict[str, Sequence[float]] = {
            model: [categories[name][model]["mean"] * (100 if is_pair else 1) for name in complete]
            for model in results.models[:MAX_MATRIX_MODELS]
        }
        title = "points by category, in percent" if is_pair else "score by category"
        page.add_figure(radar_chart(complete, series, maximum=100 if is_pair else 10, title=title))
    rows = []
    models = results.models[:MAX_MATRIX_MODELS]
    for name, of in list(categories.items())[:MAX_SHOWN]:
        cells = [_cell(of[model], results.mode) if model in of else "unscored" for model in models]
        rows.append([name, max((one["num_questions"] for one in of.values()), default=0), *cells])
    page.add_table(["category", "questions", *models], rows, numeric=range(1, len(models) + 2))
    _add_rest(page, len(categories), "categories")
    _add_rest(page, len(results.models), "models", shown=MAX_MATRIX_MODELS)


def _add_bias(page: Page, found: Mapping[str, Any]) -> None:
    page.add_heading("How far the judge can be trusted")
    position, longer = found["position"], found["longer_answer_wins"]
    total, verdicts = position["num_in_both_orders"], position["verdicts"]
    if total:
        names = ("consistent", "always_first", "always_second", "tie_in_one_order")
        words = (
            "the same verdict",
            "the first place, whoever stood there",
            "the second place",
            "a tie in one order only",
        )
        rows = [
            [word, position[name], f"{position[name] / total:.0%}"] for word, name in zip(words, names, strict=True)
        ]
        page.add_table(["in both orders the judge chose", "times", "share"], rows, numeric=(1, 2))
    elif position["num_orders"] == 1:
        page.add_paragraph("Each pair was shown in one order only, so a preference for a place would go unseen.")
    else:
        page.add_paragraph("No pair has a readable verdict in both orders, so a preference for a place goes unseen.")
    text = f"Of all readable verdicts {verdicts['first']} name the first place, {verdicts['second']} the second, "
    text += f"{verdicts['tie']} are ties."
    if longer:
        share, count = longer["share"], longer["num_comparisons"]
        text += f" The longer answer won {share:.0%} of the {count} comparisons that were won."
    page.add_paragraph(text)


def _add_record(page: Page, found: Mapping[str, Any]) -> None:
    page.add_heading("Record")
    unscored, usage, hashes = found["unscored"], found["usage"], found["hashes"]
    tokens = f"{usage['prompt_tokens']:,} prompt, {usage['completion_tokens']:,} completion"
    if usage["num_without_usage"]:
        tokens += f" ({usage['num_without_usage']} judgments without figures)"
    cost = "not known, some judgments being without a price" if usage["usd"] is None else f"${usage['usd']:.4f}"
    if usage["usd"] is not None and usage["num_without_usage"]:
        cost += " (in part at most, the server not counting tokens)"
    rows = [
        ["unreadable judgments (kept, not scored)", unscored["unreadable_judgments"]],
        [
            "questions of a pair or model left out, a verdict being unreadable or missing",
            unscored["incomplete_questions"],
        ],
        ["judgments asked for a second time", usage["num_asked_again"]],
        ["judge's tokens", tokens],
        ["judge's cost", cost],
        ["judge prompts (name, hash)", "; ".join(_first(hashes["prompts"], "prompts"))],
        ["questions (hash)", hashes["questions"] or "not recorded"],
        ["answers (hash)", hashes["answers"] or "not recorded"],
        *([f"{name} (SHA-256)", value] for name, value in hashes["judgment_files"].items()),
    ]
    page.add_table(["what", "value"], rows, numeric=())


def _first(texts: Sequence[str], what: str) -> list[str]:
    rest = len(texts) - MAX_SHOWN
    return [*texts[:MAX_SHOWN], f"{rest:,} more {what}; --json has them all"] if rest > 0 else list(texts)


def _add_rest(page: Page, count: int, what: str, *, shown: int = MAX_SHOWN) -> None:
    if count > shown:
        page.add_paragraph(f"{count - shown:,} more {what} are not shown; --json has them all.", faint=True)


def _cells(one: Mapping[str, Any], mode: str) -> list[str]:
    """A mean and its interval as shown."""
    if one["mean"] is None:
        return ["unscored", "-"]
    if mode == "pair":
        return [f"{one['mean']:.1%}", _interval(one, ".0%")]
    return [f"{one['mean']:.2f}", _interval(one, ".2f")]


def _cell(one: Mapping[str, Any], mode: str) -> str:
    """The same in one cell."""
    mean, interval = _cells(one, mode)
    return mean if interval == "-" else f"{mean} ({interval})"


def _interval(one: Mapping[str, Any], form: str) -> str:
    return "-" if one["low"] is None else f"{one['low']:{form}} to {one['high']:{form}}"


def _length_cells(one: Mapping[str, Any]) -> list[object]:
    return ["-" if one["mean_words"] is None else f"{one['mean_words']:.0f}", one["num_cut_answers"]]
