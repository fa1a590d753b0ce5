"""One verdict of a judge as a record, and as a row of a judgment file.

`judge` makes judgments and keeps them, `reporting.score` reads them back. A row has MT-bench's fields and some of our
own; ours hold one order of a pair (`g1_...` the first order, `g2_...` the swapped one), MT-bench's hold both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from vicuna.errors import VicunaError
from vicuna.eval.ask.usage import Usage
from vicuna.eval.judging.prompts import Mode, parse_sections
from vicuna.eval.questions import QuestionId
from vicuna.eval.rows import Place, checked_id, checked_name, is_amount
from vicuna.eval.verdict import MAX_SCORE, MIN_SCORE
from vicuna.io.jsonl import JsonObject

POINTS = {"model_1": 1.0, "tie": 0.5, "model_2": 0.0}
WINNERS = {points: winner for winner, points in POINTS.items()}
NONE = type(None)
# The types of a row's fields, where it has them; fields that are not named here are not read.
FIELD_TYPES: dict[tuple[type, ...], tuple[str, ...]] = {
    (int, str): ("question_id",),
    (str,): ("model", "model_1", "model_2", "category", "judgment", "g1_judgment", "g2_judgment"),
    (str, NONE): (
        "first_reply",
        "user_prompt",
        "g1_user_prompt",
        "g2_user_prompt",
        "prompt_hash",
        "question_hash",
        "answers_hash",
    ),
    (int,): ("repeat",),
    (list,): ("judge", "cut_answers"),
    (dict, NONE): ("usage",),
}

TYPES = {name: types for types, names in FIELD_TYPES.items() for name in names}


class Slot(NamedTuple):
    """What is judged, and by whom. One slot has one judgment; two would be averaged by mistake."""

    mode: Mode
    question_id: str
    models: tuple[str, ...]
    judge: str
    order: int
    repeat: int


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """One verdict of a judge. What MT-bench's rows do not have is empty or None.

    Attributes:
        models: the pair in the order of `model_1` and `model_2`, or the model of a single answer.
        order: 1 showed the first model as A, 2 the second; a single answer has order 1.
        points: pair: what the first model gets (1, 1/2, 0); single: the score from 1 to 10; None if unreadable.
        reply: the judge's words, from which the verdict was read.
        first_reply: the unreadable words after which the judge was asked once more.
        user_prompt: the filled-in prompt that the judge saw.
        key: the hash of everything that the verdict depends on.
        cut_answers: the models whose answers end at the token limit.
        usage: of all the calls for this row; None for the second judgment of a row, so that a sum counts a row once.
        timestamp: seconds since 1970.
        place: where the row stands, if its texts were left there.
    """

    mode: Mode
    question_id: QuestionId
    category: str
    models: tuple[str, ...]
    judge: str
    order: int
    repeat: int
    points: float | None
    reply: str
    user_prompt: str | None
    prompt_name: str
    prompt_hash: str | None = None
    first_reply: str | None = None
    key: str = ""
    question_hash: str | None = None
    answers_hash: str | None = None
    cut_answers: tuple[str, ...] = ()
    usage: Usage | None = field(default_factory=Usage)
    timestamp: float | None = None
    place: Place | None = None

    @property
    def slot(self) -> Slot:
        """What this is the judgment of."""
        return Slot(self.mode, str(self.question_id), self.models, self.judge, self.order, self.repeat)

    @property
    def is_readable(self) -> bool:
        """Whether a verdict could be read from the reply."""
        return self.points is not None

    @property
    def prompt(self) -> str:
        """Name and hash of the judge prompt."""
        return f"{self.prompt_name} {self.prompt_hash or ''}".strip()

    @cached_property
    def sections(self) -> dict[str, str]:
        """Question, reference and answers by the prompt's titles; empty where the row has no prompt of ours."""
        return parse_sections(self.user_prompt or "")

    def answer_text(self, model: str) -> str | None:
        """The answer of a model that the judge saw, or None if the row does not hold it."""
        if self.mode == "single":
            return self.sections.get("answer")
        is_shown_first = (model == self.models[0]) == (self.order == 1)
        return self.sections.get("answer A" if is_shown_first else "answer B")

    def swapped(self) -> "Judgment":
        """The same judgment of a pair with its models named in the other order."""
        points = None if self.points is None else 1 - self.points
        return replace(self, models=self.models[::-1], order=3 - self.order, points=points)

    def without_texts(self) -> "Judgment":
        """The same without its prompt and replies, which are most of it."""
        return replace(self, reply="", user_prompt=None, first_reply=None if self.first_reply is None else "")

    def to_row(self) -> JsonObject:
        """The row to keep: a judgment of ours, with a key and usage."""
        assert self.key and self.usage is not None
        row: JsonObject = {
            "key": self.key,
            "status": "scored" if self.is_readable else "unreadable",
            "mode": self.mode,
            "question_id": self.question_id,
            "category": self.category,
            "judge": [self.judge, self.prompt_name],
            "order": self.order,
            "repeat": self.repeat,
            "turn": 1,
            "prompt_hash": self.prompt_hash,
            "question_hash": self.question_hash,
            "answers_hash": self.answers_hash,
            "cut_answers": list(self.cut_answers),
            "usage": self.usage.to_json(),
            "tstamp": self.timestamp,
        }
        if self.first_reply is not None:
            row["first_reply"] = self.first_reply
        if self.mode == "single":
            shown = {"user_prompt": self.user_prompt, "judgment": self.reply, "score": self.points}
            return {**row, "model": self.models[0], **shown}
        game = f"g{self.order}"
        return {
            **row,
            "model_1": self.models[0],
            "model_2": self.models[1],
            f"{game}_user_prompt": self.user_prompt,
            f"{game}_judgment": self.reply,
            f"{game}_winner": None if self.points is None else WINNERS[self.points],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], place: str) -> list["Judgment"]:
        """The judgments in a row: one in ours, up to two in MT-bench's.

        Raises:
            VicunaError: the row is of another turn than the first, or not a judgment; the message begins with `place`.
        """
        if row.get("turn", 1) != 1:
            raise VicunaError(f"{place}: is of turn {str(row['turn'])[:60]}; only answers of one turn can be reported")
        _check_types(row, place)
        try:
            found = [_single(row)] if "model" in row else _pair(row, place)
        except (KeyError, TypeError, IndexError) as error:
            what = str(error)[:100]
            raise VicunaError(f"{place}: not a judgment, ours or MT-bench's ({what} is missing or wrong)") from None
        for name in (*found[0].models, found[0].judge, found[0].prompt_name, found[0].category):
            checked_name(name, "a name", place)
        return found


def _single(row: Mapping[str, Any]) -> Judgment:
    score = row["score"]
    points = float(score) if score is not None and MIN_SCORE <= score <= MAX_SCORE else None  # MT-bench: -1
    return Judgment(
        mode="single",
        models=(row["model"],),
        order=1,
        points=points,
        reply=row["judgment"],
        user_prompt=row.get("user_prompt"),
        usage=Usage.from_json(row.get("usage") or {}),
        **_common_fields(row),
    )


def _pair(row: Mapping[str, Any], place: str) -> list[Judgment]:
    found: list[Judgment] = []
    for order in (1, 2):
        if f"g{order}_winner" not in row:
            continue
        winner = row[f"g{order}_winner"]
        if winner is not None and not (isinstance(winner, str) and winner in (*POINTS, "error")):
            raise VicunaError(f"{place}: g{order}_winner is {str(winner)[:60]!r}; known: {', '.join(POINTS)}, error")
        one = Judgment(
            mode="pair",
            models=(row["model_1"], row["model_2"]),
            order=order,
            points=None if winner is None else POINTS.get(winner),
            reply=row[f"g{order}_judgment"],
            user_prompt=row.get(f"g{order}_user_prompt"),
            usage=None if found else Usage.from_json(row.get("usage") or {}),
            **_common_fields(row),
        )
        found.append(replace(one, first_reply=None) if found else one)
    if not found:
        raise KeyError("g1_winner")
    return found


def _common_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a judgment that do not depend on its mode."""
    return {
        "question_id": row["question_id"],
        "category": row.get("category", "general"),
        "judge": row["judge"][0],
        "repeat": row.get("repeat", 0),
        "prompt_name": row["judge"][1],
        "prompt_hash": row.get("prompt_hash"),
        "first_reply": row.get("first_reply"),
        "key": str(row.get("key", "")),
        "question_hash": row.get("question_hash"),
        "answers_hash": row.get("answers_hash"),
        "cut_answers": tuple(row.get("cut_answers", ())),
        "timestamp": row.get("tstamp"),
    }


def _check_types(row: Mapping[str, Any], place: str) -> None:
    wrong = [
        name
        for name, value in row.items()
        if (types := TYPES.get(name)) and (not isinstance(value, types) or isinstance(value, bool))
    ]
    if not wrong and not all(count is None or is_amount(count) for count in (row.get("usage") or {}).values()):
        wrong.append("usage")
    for name in ("judge", "cut_answers"):
        if not wrong and not all(isinstance(one, str) for one in row.get(name, ())):
            wrong.append(name)
    if not wrong and not (row.get("score") is None or isinstance(row["score"], int | float)):
        wrong.append("score")
    if wrong:
        raise VicunaError(
            f"{place}: {wrong[0]} is {str(row[wrong[0]])[:60]!r}, which no judgment has; correct the file"
        )
    if "question_id" in row:
        checked_id(row["question_id"], place)
