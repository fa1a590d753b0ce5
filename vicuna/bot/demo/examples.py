"""What the demo's page shows of its own data: a chat page before and after cleaning, a prompt, a pair of answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import Rendering, from_record, get_template, render
from vicuna.eval.answer import Answer, load_answers
from vicuna.eval.questions import Question, load_questions
from vicuna.io.jsonl import read_json, read_jsonl
from vicuna.material import material

MAX_HTML_CHARACTERS = 1500  # of an answer's page: more is no example that is read
MAX_PROMPT_CHARACTERS = 900
CODE_MARK = "<pre"  # an answer with code shows the most of what cleaning does


@dataclass(frozen=True)
class CleanedAnswer:
    """An answer as the chat page drew it, and as it is trained on."""

    record_id: str
    html: str
    markdown: str


def cleaned_answer(sample: Path, records: Path) -> CleanedAnswer | None:
    """The first short answer with a block of code that cleaning kept; None if there is none.

    Args:
        sample: ShareGPT conversations, their answers as HTML.
        records: what cleaning made of them.
    """
    cleaned = {row["id"]: row["messages"] for row in read_jsonl(records)}
    for record in read_json(sample):
        turns, messages = record["conversations"], cleaned.get(record["id"], [])
        for turn, message in zip(turns, messages, strict=False):
            html = turn.get("value") or ""
            is_example = CODE_MARK in html and len(html) <= MAX_HTML_CHARACTERS
            if is_example and message["role"] == "assistant" and "```" in message["content"]:
                return CleanedAnswer(record["id"], html, message["content"])
    return None


def rendered_record(records: Path, template: str) -> Rendering | None:
    """The first short record as the text that is trained on, with the spans that are learned; None if all are long."""
    for row in read_jsonl(records):
        rendering = render(from_record(row).messages, get_template(template))
        if len(rendering.text) <= MAX_PROMPT_CHARACTERS and len(rendering.reply_spans) > 1:
            return rendering
    return None


@dataclass(frozen=True)
class AskedQuestion:
    """A question and each model's answer to it."""

    question: Question
    answers: Mapping[str, Answer]


def asked_questions(answers: Path) -> list[AskedQuestion]:
    """The questions of an answer file, in their order."""
    by_model = load_answers([answers])
    asked = []
    for question in load_questions(material("eval/questions.jsonl")):
        found = {model: of[question.question_id] for model, of in by_model.items() if question.question_id in of}
        if found:
            asked.append(AskedQuestion(question, found))
    return asked


def best_example(asked: list[AskedQuestion]) -> AskedQuestion | None:
    """The question to open the page with: one that every model answered to an end, at the greatest length."""

    def fitness(one: AskedQuestion) -> tuple[bool, int]:
        texts = [answer.text for answer in one.answers.values()]
        return not any(answer.is_cut for answer in one.answers.values()), min(map(len, texts))

    return max(asked, key=fitness, default=None)


def identity_answers(served: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The questions about identity, each with the answers by model, as the stage `chat` wrote them."""
    by_question: dict[str, dict[str, str]] = {}
    for answer in served["answers"]:
        by_question.setdefault(answer["question"], {})[answer["model"]] = answer["answer"]
    return list(by_question.items())
