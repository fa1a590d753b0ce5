"""Rows of the evaluation: verdicts, intervals, ledgers, and the verbs answer, judge and report."""

import functools
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from growth_rows.inputs import Json, judgments, prose, write_lines
from growth_rows.measuring import STREAMING_BOUND, Row, Work
from vicuna import cli
from vicuna.eval.answer import load_answers
from vicuna.eval.ask.ledger import Ledger
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.judging.prompts import parse_sections
from vicuna.eval.judging.rule_judge import running_rule_judge
from vicuna.eval.rows import read_rows
from vicuna.eval.verdict import read_pair, read_score
from vicuna.statistics.intervals import estimate_mean

CHARACTERS = (50_000, 200_000, 800_000)
QUESTIONS = (1_280, 5_120, 20_480)
JUDGMENTS = (5_000, 20_000, 80_000)
CALLS = (100, 400, 1_600)

REPLIES = {
    "nested braces": '{"a":',
    "half-open quotes": 'Answer A is "good" and B is not. ',
    "fences": "```\n[[A]]\n",
    "block quotes": "> [[A]]\n",
    "thoughts": "<think> [[A]] ",
    "marks": "[[",
}


def rows() -> list[Row]:
    """All rows of the room."""
    return [
        *(
            Row(f"verdict: {name}", functools.partial(_verdict, text), CHARACTERS, "characters")
            for name, text in REPLIES.items()
        ),
        Row("judge prompt: sections", _sections, CHARACTERS, "characters"),
        Row("intervals: few values", functools.partial(_intervals, 4), QUESTIONS, "questions"),
        Row("intervals: all values differ", functools.partial(_intervals, None), QUESTIONS, "questions"),
        Row("evaluation rows", _rows, JUDGMENTS, "rows", memory_bound=STREAMING_BOUND),
        Row("answers", _answers, JUDGMENTS, "answers"),
        Row("ledger", _ledger, JUDGMENTS, "judgments"),
        Row("report: judgments", _report, JUDGMENTS, "judgments", ("verb eval report",)),
        Row("report: models of one question each", _report_models, (8, 32, 128), "models", time_bound=2.1,
            memory_bound=2.1, why="pairs of models grow with the square of their number"),
        Row("answer", _answer, CALLS, "questions", ("verb eval answer",)),
        Row("judge", _judge, CALLS, "questions", ("verb eval judge",)),
    ]  # fmt: skip


def _verdict(text: str, size: int, _: Path) -> Work:
    reply = text * (size // len(text)) + "\n\n[[B]]"
    return lambda: (read_pair(reply), read_score(reply))


def _sections(size: int, _: Path) -> Work:
    prompt = "[question 0123456789ab]\nx\n" * (size // 26)
    return lambda: parse_sections(prompt)


def _intervals(num_values: int | None, size: int, _: Path) -> Work:
    draw = random.Random(1)
    values = [draw.random() if num_values is None else draw.randrange(num_values) / num_values for _ in range(size)]
    return lambda: estimate_mean(values, bounds=(0, 1))


def _question(number: int) -> Json:
    return {"question_id": number, "text": f"Question {number}: {prose(12, number)}", "category": f"c{number % 8}"}


def _answer_row(number: int, model: str) -> Json:
    text = f"{model} says {prose(30, number)}"
    return {"question_id": number, "model_id": model, "text": text, "answer_id": f"{model}{number}"}


def _rows(size: int, room: Path) -> Work:
    path = write_lines(room / "rows.jsonl", judgments(size))

    def work() -> None:
        for _ in read_rows(path):
            pass

    return work


def _answers(size: int, room: Path) -> Work:
    path = write_lines(room / "answers.jsonl", (_answer_row(number, "apple") for number in range(size)))
    return lambda: load_answers([path])


def _ledger(size: int, room: Path) -> Work:
    path = write_lines(room / "judgments.jsonl", judgments(size))

    def from_row(row: Any) -> Judgment:
        return Judgment.from_row(row, "row")[0]

    def work() -> object:
        with Ledger(path, fields=("mode",), from_row=from_row, light=Judgment.without_texts) as ledger:
            return ledger

    return work


def _run(*words: object) -> None:
    status = cli.main([str(word) for word in words])
    assert status == 0, f"vicuna {' '.join(map(str, words))} ended with {status}"


def _reported(room: Path, rows: Any) -> Work:
    path = write_lines(room / "judgments.jsonl", rows)
    return lambda: _run("eval", "report", "--judgments", path, "--output", room / "report.html")


def _report(size: int, room: Path) -> Work:
    return _reported(room, judgments(size))


def _report_models(size: int, room: Path) -> Work:
    names = [f"model-{number}" for number in range(size)]

    def all_pairs() -> Any:
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                for row in judgments(8, (first, second)):
                    yield {**row, "key": f"{first} {second} {row['key']}"}

    return _reported(room, all_pairs())


def _answer(size: int, room: Path) -> Work:
    questions = write_lines(room / "questions.jsonl", map(_question, range(size)))

    def work() -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            address = ("--base-url", f"http://127.0.0.1:{server.server_port}/v1", "--model", "m")
            _run("eval", "answer", *address, "--questions", questions, "--output", room / "answers.jsonl")
            server.shutdown()

    return work


class _Answering(BaseHTTPRequestHandler):
    """A server that gives every question the same answer."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Because it is so."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        data = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_: Any) -> None:
        pass


def _judge(size: int, room: Path) -> Work:
    questions = write_lines(room / "questions.jsonl", map(_question, range(size)))
    models = ("apple", "birch")
    given = [_answer_row(number, model) for model in models for number in range(size)]
    answers = write_lines(room / "answers.jsonl", given)

    def work() -> None:
        with running_rule_judge() as url:
            asked = ("--mode", "pair", "--judge", "rule-judge", "--base-url", url, "--questions", questions)
            _run("eval", "judge", *asked, "--answers", answers, "--output", room / "judgments.jsonl")

    return work
