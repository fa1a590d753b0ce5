"""Judgment files to judgments without their texts: one pass, in memory in proportion to their number, not their length.

Before `score` and `figures`, which need verdicts, hashes and lengths; after them `browser` reads the texts of a
question again, from the place where each row stands.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

from vicuna.errors import VicunaError
from vicuna.eval.answer import Answer, read_answers
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.questions import QuestionId
from vicuna.eval.rows import Place, RowReader, read_rows

T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A text that was left where it stands.

    Attributes:
        digest: a hash of it.
        num_words: its length.
        place: in the answer files; None if it stands in a judgment's prompt.
    """

    digest: bytes
    num_words: int
    place: Place | None = None


@dataclass
class Texts:
    """The judged answers: model -> question -> text; and the questions' wordings under the model ''."""

    of: dict[str, dict[QuestionId, Text]] = field(default_factory=dict)
    _seen: set[tuple[QuestionId, tuple[str, ...], str, str]] = field(default_factory=set)

    def add(self, judgment: Judgment) -> None:
        """Note what a judgment shows.

        Raises:
            VicunaError: another one showed the same model's answer, or the same question, in another wording: they
                would be averaged as if they were one.
        """
        if judgment.question_hash and judgment.answers_hash:
            what_is_shown = judgment.question_id, judgment.models, judgment.question_hash, judgment.answers_hash
            if what_is_shown in self._seen:  # the other order, another judge, a repeat
                return
            self._seen.add(what_is_shown)
        shown = [(model, judgment.answer_text(model)) for model in judgment.models]
        for model, text in [*shown, ("", judgment.sections.get("question"))]:
            if text is None:
                continue
            held = self.of.setdefault(model, {}).get(judgment.question_id)
            if held is None:
                self.of[model][judgment.question_id] = _text(text)
            elif held.digest != _digest(text):
                what = f"the answer of {model} to question" if model else "the wording of question"
                raise VicunaError(f"{what} {judgment.question_id} differs between judgments; report them by themselves")

    def add_answers(self, paths: Sequence[Path], judgments: Sequence[Judgment]) -> None:
        """See that the answer files hold what was judged, and take from them what the judgments do not show.

        Raises:
            VicunaError: a judged answer is another one there, or is not there at all.
        """
        if not paths:
            return
        in_files: dict[str, dict[QuestionId, Text]] = {}
        for place, answer in read_answers(paths):
            in_files.setdefault(answer.model, {})[answer.question_id] = _text(answer.text, place)
        for one in judgments:
            for model in one.models:
                found = in_files.get(model, {}).get(one.question_id)
                judged = self.of.setdefault(model, {}).get(one.question_id)
                if judged is not None and (found is None or found.digest != judged.digest):
                    what = "is not" if found is None else "is another one"
                    raise VicunaError(
                        f"the judged answer of {model} to question {one.question_id} {what} in --answers; give the "
                        "files that were judged"
                    )
                if found is not None and judged is None:
                    self.of[model][one.question_id] = found

    def words(self) -> dict[str, dict[QuestionId, int]]:
        """Model -> question -> the number of words of its answer."""
        return {
            model: {question_id: text.num_words for question_id, text in of.items()}
            for model, of in self.of.items()
            if model
        }


def load_judgments(paths: Sequence[Path]) -> list[Judgment]:
    """The judgments of some files, without their texts; see `read_judgments`."""
    return read_judgments(paths)[0]


def read_judgments(paths: Sequence[Path]) -> tuple[list[Judgment], Texts]:
    """The judgments of some files, without their texts, and what is known of these.

    Raises:
        VicunaError: a missing file, a row of another shape, files of both modes, a judgment held twice, an answer or a
            question in two wordings.
    """
    judgments: list[Judgment] = []
    slots: set[int] = set()
    pairs: set[tuple[str, ...]] = set()
    texts = Texts()
    shared: dict[object, object] = {}

    def one_of(value: T) -> T:
        """The same value in the same object: names repeat in every row."""
        return shared.setdefault(value, value)  # type: ignore[return-value]

    for file, path in enumerate(paths):
        for number, place, row in read_rows(path, file=file):
            for read in Judgment.from_row(row, f"{path}: judgment {number}"):
                # One pair, in whichever order a file names it; else it would be compared twice.
                one = read.swapped() if read.mode == "pair" and read.models[::-1] in pairs else read
                pairs.add(one.models)
                slot = int.from_bytes(_digest(repr(one.slot)))
                if slot in slots:
                    raise VicunaError(
                        f"{path}: judgment {number} is the second by {one.judge} of question {one.question_id} for "
                        f"{' and '.join(one.models)} in the same order; give each file once"
                    )
                slots.add(slot)
                texts.add(one)
                judgments.append(
                    replace(
                        one,
                        reply="",
                        user_prompt=None,
                        first_reply=None if one.first_reply is None else "",
                        place=place,
                        key="",
                        timestamp=None,
                        category=one_of(one.category),
                        models=one_of(one.models),
                        judge=one_of(one.judge),
                        prompt_name=one_of(one.prompt_name),
                        prompt_hash=one_of(one.prompt_hash),
                        question_hash=one_of(one.question_hash),
                        answers_hash=one_of(one.answers_hash),
                        cut_answers=one_of(one.cut_answers),
                        usage=one_of(one.usage),
                    )
                )
    if not judgments:
        raise VicunaError(f"{', '.join(map(str, paths))}: no judgments")
    if len({one.mode for one in judgments}) > 1:
        raise VicunaError("the files hold judgments of pairs and of single answers; report each kind by itself")
    return judgments, texts


class Sources:
    """The files behind a report, from which texts are read again. Use as a context manager.

    Args:
        judgments: files; a judgment's `place` is in one of them.
        answers: files; a text's `place` is in one of them.
    """

    def __init__(self, judgments: Sequence[Path], answers: Sequence[Path], texts: Texts) -> None:
        self.texts = texts
        self._judgments, self._answers = RowReader(judgments), RowReader(answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._judgments.__exit__()
        self._answers.__exit__()

    def with_texts(self, judgments: Sequence[Judgment]) -> list[Judgment]:
        """Judgments with their prompts and replies."""
        found = []
        for light in judgments:
            if light.place is None:  # its texts were never left behind
                found.append(light)
                continue
            row = self._judgments.read(light.place)
            try:
                if light.mode == "single":
                    game, reply = "", row["judgment"]
                else:
                    game = f"g{light.order if row['model_1'] == light.models[0] else 3 - light.order}_"
                    reply = row[f"{game}judgment"]
                found.append(replace(light, reply=reply, user_prompt=row.get(f"{game}user_prompt")))
            except KeyError:
                where = self._judgments.paths[light.place.file]
                raise VicunaError(f"{where}: was changed while it was read; run the command again") from None
        return found

    def answers_to(
        self, question_id: QuestionId, models: Sequence[str], judgments: Sequence[Judgment]
    ) -> Mapping[str, str | None]:
        """Model -> its answer, as some judgments with texts show it or else as an answer file has it."""
        answers: dict[str, str | None] = dict.fromkeys(models)
        for one in judgments:
            for model in one.models:
                if answers[model] is None:
                    answers[model] = one.answer_text(model)
        for model in models:
            kept = self.texts.of.get(model, {}).get(question_id)
            if answers[model] is None and kept is not None and kept.place is not None:
                where = str(self._answers.paths[kept.place.file])
                answers[model] = Answer.from_row(self._answers.read(kept.place), where).text
        return answers


def _text(text: str, place: Place | None = None) -> Text:
    return Text(_digest(text), len(text.split()), place)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
