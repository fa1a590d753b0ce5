"""The step `decontaminate`: conversations that ask an evaluation question are dropped.

A human turn contains a question if more than half of the question's words lie in 8-grams that the turn has too, letter
case and punctuation aside: the measure of Tülu 3 (Lambert et al. 2024, arXiv:2411.15124), which also finds questions
that were shortened, extended or wrapped in other words. A question of fewer than eight words ("What is love?") occurs
in too many other texts, so it must be the whole turn. Rephrased questions are not found by such a measure (Yang et al.
2023, arXiv:2311.04850).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step, excerpt
from vicuna.data.steps.shingles import Hashes, hashes_of, phrase_hashes, word_hashes
from vicuna.errors import VicunaError
from vicuna.io.jsonl import read_json, read_jsonl
from vicuna.material import material

PHRASE_WORDS = 8
MIN_OVERLAP = 0.5
FILTER_BITS = 18  # a table of 256 KiB; with 5,000 phrases in it, one lookup rules out 98% of all others
TEXT_KEYS = ("text", "question", "prompt", "instruction")


@dataclass(frozen=True)
class Question:
    """An evaluation question: its file and number there, and its text."""

    name: str
    text: str


def shipped_questions() -> Path:
    """The file of the questions that `vicuna eval` asks."""
    return material("eval/questions.jsonl")


def read_questions(path: Path) -> list[Question]:
    """The questions of a file: JSON lines, or a JSON array in a file named `.json`.

    A row holds `text` (Vicuna-bench), `turns` (MT-bench: the first one; later ones lean on it), `question`, `prompt` or
    `instruction` (with `input`, if any).

    Raises:
        VicunaError: the file cannot be read, or a row holds none of these.
    """
    if path.suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise VicunaError(f"{path}: expected a JSON array of questions; one object a line goes into a .jsonl file")
    else:
        rows = list(read_jsonl(path))
    questions = [Question(_name(path, number, row), _text(path, number, row)) for number, row in enumerate(rows, 1)]
    if not questions:
        raise VicunaError(f"{path}: no question in it")
    return questions


def _name(path: Path, number: int, row: Any) -> str:
    identifier = row.get("question_id", row.get("id")) if isinstance(row, dict) else None
    return f"{path.name}, question {number if identifier is None else identifier}"


def _text(path: Path, number: int, row: Any) -> str:
    if isinstance(row, dict):
        turns = row.get("turns")
        values = [turns[0] if isinstance(turns, list) and turns else None, *(row.get(key) for key in TEXT_KEYS)]
        text = next((value for value in values if isinstance(value, str) and value.strip()), "")
        if isinstance(extra := row.get("input"), str) and "instruction" in row:
            text = f"{text}\n{extra}"
        if text.strip():
            return text
    raise VicunaError(f"{path}: row {number} holds no question; give it one of: turns, {', '.join(TEXT_KEYS)}")


def decontamination_step(files: Sequence[Path]) -> Step:
    """The step, for the questions of these files.

    Raises:
        VicunaError: a file cannot be read as questions.
    """
    questions = _Questions(question for path in files for question in read_questions(path))

    def run(record: Record) -> Outcome:
        asked = [index for index, message in enumerate(record.messages) if message.role == "user"]
        hashes = hashes_of(record)
        if questions.may_be_in([hashes[index] for index in asked]):
            for index in asked:
                if found := questions.find(hashes[index]):
                    question, part = found
                    evidence = excerpt(f"{question.name}, {part:.0%} of its words: {question.text}")
                    return Drop(Finding("evaluation_question", evidence, record.turns[index]))
        return Keep(record)

    rules = {"evaluation_question": "a human turn holds a question that evaluates the model; the evidence names it"}
    return Step("decontaminate", 1, rules, run)


class _Questions:
    """An index of the questions by their 8-grams; short questions by all of their words."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self.short: dict[tuple[int, ...], Question] = {}
        self.long: list[Question] = []
        self.num_words: list[int] = []
        self.places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # phrase -> question, its first word
        for question in questions:
            words = word_hashes(question.text)
            if len(words) < PHRASE_WORDS:
                self.short.setdefault(tuple(words.tolist()), question)
                continue
            for place, phrase in enumerate(phrase_hashes(words, PHRASE_WORDS).tolist()):
                self.places[phrase].append((len(self.long), place))
            self.long.append(question)
            self.num_words.append(len(words))
        self.filter = np.zeros(1 << FILTER_BITS, bool)
        self.filter[self._slots(np.array(list(self.places), np.uint64))] = True

    def may_be_in(self, turns: list[Hashes]) -> bool:
        """A fast check on the words of all turns at once: False only where `find` finds nothing."""
        if self.short and any(len(words) < PHRASE_WORDS for words in turns):
            return True
        return bool(turns) and any(self._hits(phrase_hashes(np.concatenate(turns), PHRASE_WORDS)))

    def find(self, words: Hashes) -> tuple[Question, float] | None:
        """The question that a turn with these words contains, and the part of its words that the turn has."""
        if len(words) < PHRASE_WORDS:
            same = self.short.get(tuple(words.tolist()))
            return (same, 1.0) if same is not None else None
        covered: dict[int, set[int]] = defaultdict(set)
        for phrase in self._hits(phrase_hashes(words, PHRASE_WORDS)):
            for number, place in self.places[phrase]:
                covered[number].update(range(place, place + PHRASE_WORDS))
        parts = {number: len(places) / self.num_words[number] for number, places in covered.items()}
        best = max(parts, key=lambda number: (parts[number], -number), default=None)
        return (self.long[best], parts[best]) if best is not None and parts[best] > MIN_OVERLAP else None

    def _hits(self, phrases: Hashes) -> Iterator[int]:
        """Those of the phrases that are in a question."""
        passed = set(phrases[self.filter[self._slots(phrases)]].tolist())
        return (phrase for phrase in passed if phrase in self.places)

    @staticmethod
    def _slots(phrases: Hashes) -> Hashes:
        return phrases >> np.uint64(64 - FILTER_BITS)
