"""The question browser of the report's page: each question with its answers side by side and the judge's replies.

After `score`; `report` puts it at the end of its page. Few questions stand on the page itself. Many stand in pieces, on
pages of their own in a folder beside it, each opened by a link: the page opens at once, without a script, a server or a
network, and no more than one piece is in memory while they are written. Without that folder the page loses its
questions and keeps its figures.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from vicuna.errors import VicunaError
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId
from vicuna.eval.reporting.reading import Sources
from vicuna.eval.reporting.score import Results
from vicuna.eval.verdict import explanation
from vicuna.io.files import atomic_directory
from vicuna.io.markup import Markup, fill
from vicuna.report_page import Page

# Up to so many questions, and bytes of judgments on them, stand on the page itself.
MAX_QUESTIONS_ON_PAGE = 200
MAX_BYTES_ON_PAGE = 8 << 20
# A piece ends at so many questions or, with longer texts, at so many bytes of judgments.
QUESTIONS_PER_PIECE = 100
BYTES_PER_PIECE = 2 << 20
# A longer text is shown so far.
MAX_CHARS_SHOWN = 100_000
_PIECE_NAME = re.compile(r"questions-\d{5,}\.html")


def questions_markup(results: Results, sources: Sources, page_path: Path) -> Markup:
    """All questions as markup, or the links to the pieces that were written beside the page.

    Raises:
        VicunaError: the folder of the pieces holds something else.
    """
    sizes = {question_id: sum(map(_size, here)) for question_id, here in results.by_question.items()}
    if len(sizes) <= MAX_QUESTIONS_ON_PAGE and sum(sizes.values()) <= MAX_BYTES_ON_PAGE:
        return Markup("\n").join(question_block(question_id, results, sources) for question_id in sizes)
    pieces = list(_pieces(sizes))
    folder = page_path.with_name(f"{page_path.stem}_questions")
    _refuse_folder_of_others(folder)
    with atomic_directory(folder, overwrite=True) as new:
        for number, ids in enumerate(pieces, 1):
            page = Page(f"Questions {_range(ids)}")
            links = fill(
                "eval/reporting/piece.html",
                back=f"../{quote(page_path.name, safe='')}",
                before=_name(number - 1) if number > 1 else None,
                after=_name(number + 1) if number < len(pieces) else None,
            )
            page.add_html(links)
            for question_id in ids:
                page.add_html(question_block(question_id, results, sources))
            page.add_html(links).write(new / _name(number))
    return fill(
        "eval/reporting/pieces.html",
        folder=folder.name,
        links=[
            (f"./{quote(folder.name, safe='')}/{_name(number)}", _range(ids), len(ids))
            for number, ids in enumerate(pieces, 1)
        ],
    )


def question_block(question_id: QuestionId, results: Results, sources: Sources) -> Markup:
    """One question as markup: closed, its category and outcome; open, all that was said."""
    judgments = sources.with_texts(results.by_question[question_id])
    return fill(
        "eval/reporting/question.html",
        id=question_id,
        category=results.categories[question_id],
        outcome=outcome(question_id, results),
        shown={
            title: _cut(text) for title, text in next((one.sections for one in judgments if one.sections), {}).items()
        },
        answers={
            model: None if text is None else _cut(text)
            for model, text in sources.answers_to(question_id, results.models, judgments).items()
        },
        verdicts=[
            {
                "words": verdict_words(one),
                "judge": one.judge,
                "place": one.models[0] if one.mode == "single" else f"A is {_first(one)}",
                "repeat": one.repeat,
                "explanation": _cut(explanation(one.reply)),
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


def _pieces(sizes: dict[QuestionId, int]) -> Iterator[list[QuestionId]]:
    piece: list[QuestionId] = []
    num_bytes = 0
    for question_id, size in sizes.items():
        if piece and (len(piece) == QUESTIONS_PER_PIECE or num_bytes + size > BYTES_PER_PIECE):
            yield piece
            piece, num_bytes = [], 0
        piece.append(question_id)
        num_bytes += size
    yield piece


def _size(judgment: Judgment) -> int:
    return judgment.place.size if judgment.place else len(judgment.user_prompt or "") + len(judgment.reply)


def _name(number: int) -> str:
    return f"questions-{number:05d}.html"


def _range(ids: Sequence[QuestionId]) -> str:
    first, last = (str(one)[:60] for one in (ids[0], ids[-1]))
    return first if len(ids) == 1 else f"{first} to {last}"


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARS_SHOWN:
        return text
    return f"{text[:MAX_CHARS_SHOWN]}\n\n[{len(text) - MAX_CHARS_SHOWN:,} more characters are in the files]"


def _refuse_folder_of_others(folder: Path) -> None:
    """See that only pieces of an earlier page are replaced.

    Raises:
        VicunaError: the folder holds something else, or is a link or a file.
    """
    is_ours = not folder.is_symlink() and (not folder.exists() or folder.is_dir())
    if not is_ours or (folder.is_dir() and not all(_PIECE_NAME.fullmatch(one.name) for one in folder.iterdir())):
        raise VicunaError(f"{folder}: holds something else than pieces of this page; name another --output")
