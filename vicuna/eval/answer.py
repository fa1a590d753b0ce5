"""`python -m vicuna.eval answer`: ask a model the questions and keep its answers.

After `questions`, before `judge`. Each answer is on the disk as soon as it is there; run again after a kill, only the
missing ones are asked. The rows of the file are Vicuna-bench's (`text`) with usage; MT-bench's (`choices`) are read as
well.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError
from vicuna.eval.ask.endpoint import OPENAI_URL, Endpoint
from vicuna.eval.ask.ledger import Ledger
from vicuna.eval.ask.runner import Outcome, run_calls
from vicuna.eval.ask.usage import Usage
from vicuna.eval.questions import Question, QuestionId, content_hash, load_questions, select_questions
from vicuna.eval.rows import Place, checked_id, checked_name, read_rows
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import Progress, info, warning
from vicuna.io.terminal import write
from vicuna.material import material
from vicuna.options import option, parse

# Besides its key: what tells an answer file from another one.
NEEDED_FIELDS = ("model_id", "question_id", "text")


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """Options of `python -m vicuna.eval answer`. Token limit and temperature are those of Vicuna's own evaluation
    (FastChat's first release, `fastchat/eval/get_model_answer.py`)."""

    model: str = option(help="name of the model at the server, and in the answers", aliases=("--model-id",))
    base_url: str = option(OPENAI_URL, help="OpenAI-compatible server, up to /v1; its key is read from OPENAI_API_KEY")
    questions: Path | None = option(None, help="question file (JSON lines); the 80 shipped ones if not given")
    output: Path = option(help="answer file (JSON lines), continued if it exists", aliases=("--answer-file",))
    categories: tuple[str, ...] = option((), help="only these categories")
    num_questions: int | None = option(None, help="only so many questions, spread evenly over the categories")
    max_tokens: int = option(1024, help="longest answer, in tokens", aliases=("--max-new-token",))
    temperature: float = option(0.7, help="sampling temperature; 0 is greedy")
    seed: int | None = option(
        None, help="seed of the sampling, sent to the server, so that it gives the same answers again", minimum=0
    )
    concurrency: int = option(8, help="requests at the same time")
    timeout_seconds: float = option(600.0, help="longest wait for one answer")
    max_retries: int = option(6, help="attempts after the first when the server is busy or fails")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to a question. What MT-bench's rows do not have is empty or None.

    Attributes:
        question_hash: a hash of the question's wording.
        key: the hash of everything that the answer depends on.
        settings: `max_tokens`, `temperature`, and `seed` where one was sent.
        timestamp: seconds since 1970.
    """

    model: str
    question_id: QuestionId
    text: str
    question_hash: str | None = None
    finish_reason: str | None = None
    key: str = ""
    settings: JsonObject | None = None
    usage: Usage = field(default_factory=Usage)
    timestamp: float | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it ends at the token limit."""
        return self.finish_reason == "length"

    def to_row(self) -> JsonObject:
        """The row to keep."""
        return {
            "key": self.key,
            "answer_id": self.key,
            "question_id": self.question_id,
            "model_id": self.model,
            "text": self.text,
            "metadata": {
                "settings": self.settings,
                "finish_reason": self.finish_reason,
                "question_hash": self.question_hash,
            },
            "usage": self.usage.to_json(),
            "tstamp": self.timestamp,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], place: str) -> "Answer":
        """The answer in a row: ours or Vicuna-bench's (`text`), or MT-bench's (`choices`).

        Raises:
            VicunaError: the row has another shape, or an answer of several turns; the message begins with `place`.
        """
        model, question_id, text = row.get("model_id"), row.get("question_id"), row.get("text")
        if text is None and isinstance(row.get("choices"), list):
            text = _only_turn(row["choices"], place)
        if not isinstance(model, str) or question_id is None or not isinstance(text, str):
            found = ", ".join(sorted(row))[:200]
            raise VicunaError(f"{place}: needs 'model_id', 'question_id' and 'text' (or 'choices'); found {found}")
        metadata, usage = (value if isinstance(value := row.get(name), dict) else {} for name in ("metadata", "usage"))
        return cls(
            model=checked_name(model, "model_id", place),
            question_id=checked_id(question_id, place),
            text=text,
            question_hash=metadata.get("question_hash"),
            finish_reason=metadata.get("finish_reason"),
            key=str(row.get("key", "")),
            settings=metadata.get("settings"),
            usage=Usage.from_json(usage),
            timestamp=row.get("tstamp"),
        )


def main(argv: list[str] | None = None) -> int:
    """Answer the questions; 0 when every one has its answer."""
    description = "Ask a model the questions; run again, it asks only what is missing."
    options = parse(AnswerOptions, argv, prog="vicuna eval answer", description=description)
    check_positive(options, "max_tokens", "concurrency", "timeout_seconds")
    questions = select_questions(
        load_questions(options.questions or material("eval/questions.jsonl")),
        categories=options.categories,
        num_questions=options.num_questions,
    )
    answer_questions(options, questions)
    write(f"{len(questions)} answers by {options.model} in {options.output}")
    return 0


def check_positive(options: Any, *names: str) -> None:
    """Refuse options that must be above zero, and a negative `max_retries` or `temperature`.

    Raises:
        UsageError: names the flag and its value.
    """
    for name in (*names, "max_retries", "temperature"):
        value = getattr(options, name)
        if value < 0 or (value == 0 and name in names) or value != value:
            least = "above 0" if name in names else "0 or more"
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be {least}")


def answer_questions(options: AnswerOptions, questions: Sequence[Question]) -> None:
    """Ask the questions that the output does not answer yet.

    Raises:
        VicunaError: the output holds answers of this model made in another way; answers are missing at the end.
    """
    endpoint = Endpoint(
        options.model, options.base_url, timeout_seconds=options.timeout_seconds, max_retries=options.max_retries
    )
    settings: JsonObject = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    if options.seed is not None:
        settings["seed"] = options.seed
    keys = {one.question_id: content_hash(one.question_id, one.text, options.model, settings) for one in questions}
    with Ledger(options.output, fields=NEEDED_FIELDS, from_row=_kept_answer, light=_without_text) as ledger:
        for answer in ledger.records.values():
            if answer.model == options.model and keys.get(answer.question_id, answer.key) != answer.key:
                raise VicunaError(
                    f"{options.output}: answers question {answer.question_id} as {options.model} with other settings "
                    "or in another wording; name another --output"
                )
        missing = [question for question in questions if keys[question.question_id] not in ledger.records]
        if kept := len(questions) - len(missing):
            info(f"{kept} of {len(questions)} answers are already in {options.output}")
        if missing:
            outcome = asyncio.run(_ask_all(options, endpoint, ledger, missing, keys, settings))
            outcome.require_complete(len(missing), "answers")


def _kept_answer(row: JsonObject) -> Answer:
    return Answer.from_row(row, "its row")


def _without_text(answer: Answer) -> Answer:
    return replace(answer, text="")


async def _ask_all(
    options: AnswerOptions,
    endpoint: Endpoint,
    ledger: Ledger[Answer],
    questions: Sequence[Question],
    keys: dict[QuestionId, str],
    settings: JsonObject,
) -> Outcome:
    num_cut = 0
    with Progress(len(questions), description=f"{options.model} answers", unit="questions") as progress:

        async def ask(question: Question) -> None:
            nonlocal num_cut
            messages = [Message(role="user", content=question.text)]
            reply = await endpoint.chat(
                messages, max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed
            )
            answer = Answer(
                model=options.model,
                question_id=question.question_id,
                text=reply.text,
                question_hash=content_hash(question.text),
                finish_reason=reply.finish_reason,
                key=keys[question.question_id],
                settings=settings,
                usage=reply.usage,
                timestamp=time.time(),
            )
            await ledger.append(answer)
            num_cut += answer.is_cut
            progress.update()

        async with endpoint:
            outcome = await run_calls(questions, ask, concurrency=options.concurrency)
    if num_cut:
        warning(f"{num_cut} answers end at --max-tokens {options.max_tokens}")
    return outcome


def load_answers(paths: Sequence[Path]) -> dict[str, dict[QuestionId, Answer]]:
    """Answers by model and question, in the order of the files.

    Raises:
        VicunaError: a missing file, a row of another shape, two answers of a model to one question.
    """
    answers: dict[str, dict[QuestionId, Answer]] = {}
    for _, answer in read_answers(paths):
        answers.setdefault(answer.model, {})[answer.question_id] = answer
    return answers


def read_answers(paths: Sequence[Path]) -> Iterator[tuple[Place, Answer]]:
    """The same one by one, each with its place."""
    seen: set[tuple[str, QuestionId]] = set()
    for file, path in enumerate(paths):
        for number, place, row in read_rows(path, file=file):
            answer = Answer.from_row(row, f"{path}: answer {number}")
            if (answer.model, answer.question_id) in seen:
                raise VicunaError(
                    f"{path}: a second answer of {answer.model} to question {answer.question_id}; "
                    "keep one, or give the models different names"
                )
            seen.add((answer.model, answer.question_id))
            yield place, answer


def _only_turn(choices: list[Any], place: str) -> object:
    """The answer in MT-bench's `choices`, which hold a list of turns each."""
    try:
        turns = choices[0]["turns"]
    except (IndexError, KeyError, TypeError):
        raise VicunaError(f"{place}: 'choices' without 'turns'") from None
    if not isinstance(turns, list) or len(turns) != 1:
        raise VicunaError(f"{place}: its answer is not of one turn; only answers of one turn can be judged")
    return turns[0]
