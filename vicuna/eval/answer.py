"""`python -m vicuna.eval answer`: ask a model the questions and keep its answers.

After `questions`, before `judge`. Each answer is on the disk as soon as it is there; run again after a kill, only the
missing ones are asked. The rows are Vicuna-bench's (`text`) with usage; `load_answers` reads MT-bench's (`choices`)
too.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError
from vicuna.eval.ask.endpoint import OPENAI_URL, Endpoint
from vicuna.eval.ask.ledger import Ledger
from vicuna.eval.ask.runner import Outcome, run_calls
from vicuna.eval.questions import Question, QuestionId, content_hash, load_questions, select_questions
from vicuna.io.jsonl import read_jsonl
from vicuna.io.log import Progress, info, warning
from vicuna.material import material
from vicuna.options import option, parse


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
    concurrency: int = option(8, help="requests at the same time")
    timeout_seconds: float = option(600.0, help="longest wait for one answer")
    max_retries: int = option(6, help="attempts after the first when the server is busy or fails")


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question; `question_hash` names the question's wording, where it was recorded, and
    `is_cut` says that it ends at the token limit."""

    model: str
    question_id: QuestionId
    text: str
    question_hash: str | None
    is_cut: bool = False


def main(argv: list[str] | None = None) -> int:
    """Answer the questions; 0 when every one has its answer."""
    description = "Ask a model the questions; run again, it asks only what is missing."
    options = parse(AnswerOptions, argv, prog="python -m vicuna.eval answer", description=description)
    check_positive(options, "max_tokens", "concurrency", "timeout_seconds")
    questions = select_questions(
        load_questions(options.questions or material("eval/questions.jsonl")),
        categories=options.categories,
        num_questions=options.num_questions,
    )
    answer_questions(options, questions)
    print(f"{len(questions)} answers by {options.model} in {options.output}")
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
    settings = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    keys = {one.question_id: content_hash(one.question_id, one.text, options.model, settings) for one in questions}
    with Ledger(options.output, fields=("model_id", "question_id", "text")) as ledger:
        for row in ledger.rows.values():
            if row["model_id"] == options.model and keys.get(row["question_id"], row["key"]) != row["key"]:
                raise VicunaError(
                    f"{options.output}: answers question {row['question_id']} as {options.model} with other settings "
                    "or in another wording; name another --output"
                )
        missing = [question for question in questions if keys[question.question_id] not in ledger.rows]
        if kept := len(questions) - len(missing):
            info(f"{kept} of {len(questions)} answers are already in {options.output}")
        if missing:
            outcome = asyncio.run(_ask_all(options, endpoint, ledger, missing, keys, settings))
            outcome.require_complete(len(missing), "answers")


async def _ask_all(
    options: AnswerOptions,
    endpoint: Endpoint,
    ledger: Ledger,
    questions: Sequence[Question],
    keys: dict[QuestionId, str],
    settings: dict[str, Any],
) -> Outcome:
    num_cut = 0
    with Progress(len(questions), description=f"{options.model} answers", unit="questions") as progress:

        async def ask(question: Question) -> None:
            nonlocal num_cut
            messages = [Message(role="user", content=question.text)]
            reply = await endpoint.chat(messages, max_tokens=options.max_tokens, temperature=options.temperature)
            key = keys[question.question_id]
            row = {
                "key": key,
                "answer_id": key,
                "question_id": question.question_id,
                "model_id": options.model,
                "text": reply.text,
                "metadata": {
                    "settings": settings,
                    "finish_reason": reply.finish_reason,
                    "question_hash": content_hash(question.text),
                },
                "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens},
                "tstamp": time.time(),
            }
            await ledger.append(row)
            num_cut += reply.finish_reason == "length"
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
    for path in paths:
        for number, row in enumerate(read_jsonl(path), 1):
            answer = _read_answer(row, f"{path}: answer {number}")
            of_model = answers.setdefault(answer.model, {})
            if answer.question_id in of_model:
                raise VicunaError(
                    f"{path}: a second answer of {answer.model} to question {answer.question_id}; "
                    "keep one, or give the models different names"
                )
            of_model[answer.question_id] = answer
    return answers


def _read_answer(row: dict[str, Any], place: str) -> Answer:
    model, question_id, text = row.get("model_id"), row.get("question_id"), row.get("text")
    if text is None and isinstance(row.get("choices"), list):
        try:
            turns = row["choices"][0]["turns"]
        except (IndexError, KeyError, TypeError):
            raise VicunaError(f"{place}: 'choices' without 'turns'") from None
        if not isinstance(turns, list) or len(turns) != 1:
            raise VicunaError(f"{place}: its answer is not of one turn; only answers of one turn can be judged")
        text = turns[0]
    if not isinstance(model, str) or not isinstance(question_id, int | str) or not isinstance(text, str):
        raise VicunaError(f"{place}: needs 'model_id', 'question_id' and 'text' (or 'choices'); found {sorted(row)}")
    metadata = row.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    is_cut = metadata.get("finish_reason") == "length"
    return Answer(model, question_id, text, metadata.get("question_hash"), is_cut)
