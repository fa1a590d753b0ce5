"""The questions of an evaluation, with their references.

`answer` asks them, `judge` shows them to the judge. Reads our own files and
Vicuna-bench's (`text`), and MT-bench's (`turns`, `reference`) as long as a question has one turn.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import UsageError, VicunaError, nearest
from vicuna.eval.rows import checked_id, checked_name, read_rows

QuestionId = int | str


@dataclass(frozen=True)
class Question:
    """One question of one turn; `reference` is a checked answer, where there is one."""

    question_id: QuestionId
    text: str
    category: str
    reference: str | None = None


def load_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order.

    References come from a `references.jsonl` beside the questions: never from elsewhere, since the ids of another
    question set would fit by accident.

    Raises:
        VicunaError: a missing file, a row without a needed field, a repeated id, a question of several turns, a
            reference to no question.
    """
    references = path.parent / "references.jsonl"
    known = _load_references(references) if references.exists() and path.exists() else {}
    questions: dict[QuestionId, Question] = {}
    for number, _, row in read_rows(path):
        question = _question(row, f"{path}: question {number}", known)
        if question.question_id in questions:
            raise VicunaError(f"{path}: question_id {question.question_id} occurs twice; give each question its own")
        questions[question.question_id] = question
    if not questions:
        raise VicunaError(f"{path}: no questions in it")
    if stray := [key for key in known if key not in questions]:
        raise VicunaError(f"{references}: a reference for question_id {stray[0]}, which {path} does not have")
    return list(questions.values())


def select_questions(
    questions: Sequence[Question], *, categories: Sequence[str] = (), num_questions: int | None = None
) -> list[Question]:
    """The questions of some categories, and of these `num_questions`, spread evenly over the categories.

    Always the first ones of each category, so that a smaller selection is contained in a larger one and its answers
    can be used again.

    Raises:
        UsageError: an unknown category, or a number below one or above what there is.
    """
    present = list(dict.fromkeys(question.category for question in questions))
    for category in categories:
        if category not in present:
            raise UsageError(f"unknown category '{category}'; {nearest(category, present)}")
    chosen = [question for question in questions if not categories or question.category in categories]
    if num_questions is None:
        return chosen
    if not 1 <= num_questions <= len(chosen):
        raise UsageError(f"--num-questions {num_questions}: choose between 1 and {len(chosen)}")
    seen: Counter[str] = Counter()
    rounds = []  # (place within its category, question): sorted by place, the categories alternate
    for question in chosen:
        rounds.append((seen[question.category], question))
        seen[question.category] += 1
    picked = {question.question_id for _, question in sorted(rounds, key=lambda item: item[0])[:num_questions]}
    return [question for question in chosen if question.question_id in picked]


def content_hash(*parts: Any) -> str:
    """A short name for some JSON-able content: the first 16 hex digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _question(row: dict[str, Any], place: str, references: dict[QuestionId, str]) -> Question:
    question_id = checked_id(row.get("question_id"), place)
    turns = row.get("turns", [row.get("text")])
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise VicunaError(f"{place} (question_id {question_id}): needs 'text', or 'turns' as a list of texts")
    if len(turns) > 1:
        raise VicunaError(
            f"{place} (question_id {question_id}): has {len(turns)} turns; only questions of one turn can be judged"
        )
    category = row.get("category", "general")
    if not isinstance(category, str):
        raise VicunaError(f"{place} (question_id {question_id}): category is {str(category)[:60]!r}; it must be a text")
    checked_name(category, "category", place)
    own = row.get("reference")
    own = own[0] if isinstance(own, list) and own else own
    if own is not None and not isinstance(own, str):
        raise VicunaError(f"{place} (question_id {question_id}): reference must be a text or a list of one text")
    return Question(question_id, turns[0], category, references.get(question_id, own or None))


def _load_references(path: Path) -> dict[QuestionId, str]:
    references: dict[QuestionId, str] = {}
    for number, _, row in read_rows(path):
        question_id, text = row.get("question_id"), row.get("reference")
        if question_id is None or not isinstance(text, str) or not text.strip():
            found = ", ".join(sorted(row))[:200]
            raise VicunaError(f"{path}: a row needs 'question_id' and a text as 'reference'; found {found}")
        question_id = checked_id(question_id, f"{path}: reference {number}")
        if question_id in references:
            raise VicunaError(f"{path}: two references for question_id {question_id}; keep one")
        references[question_id] = text
    return references
