"""A stand-in for a judge: a small OpenAI-compatible server that applies stated rules to what the prompt shows.

It lets the whole path from prompt to report run without a key and without a model, through the same calls as a real
judge. Its verdicts say nothing about quality, and each begins by saying so. The rules, each a number from 0 to 1:

- on topic: how many of the question's content words the answer takes up (half of them is enough for 1);
- agreement: how many of the reference's content words and numbers occur in it, where there is a reference;
- own words: how much of it is more than the question said back;
- variety: how many of its three-word sequences are different ones;
- length: 1 from 20 to 600 words, falling towards 0 outside.

The score is 1 + 9 times their product's root (the geometric mean); an empty answer has 1. Of two answers the higher
score wins, and a difference under 0.5 is a tie. The same prompt always gets the same reply.
"""

import json
import math
import re
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from vicuna.errors import UsageError, VicunaError
from vicuna.eval.judging.prompts import parse_sections
from vicuna.eval.questions import content_hash
from vicuna.io.terminal import write
from vicuna.options import option, parse

NAME = "rule-judge"
DISCLAIMER = (
    "This verdict comes from a rule-based stand-in, not from a judge: it shows that the pipeline works "
    "and says nothing about quality."
)
TIE_MARGIN = 0.5
MIN_WORDS, MAX_WORDS = 20, 600
MAX_BODY_BYTES = 4 << 20
STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been but by can could did do does for from give had has
    have how i if in into is it its like may more most must no not of on one only or other out over should so some
    such than that the their them then there these they this to two up us was were what when where which while who
    why will with would write you your
    """.split()  # noqa: SIM905 (a table of words reads better as text)
)


@dataclass(frozen=True, kw_only=True)
class RuleJudgeOptions:
    """Options of `python -m vicuna.eval rule-judge`."""

    port: int = option(8765, help="port on this machine (loopback only); 0 takes a free one")


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    options = parse(RuleJudgeOptions, argv, prog="vicuna eval rule-judge", description=__doc__ or "")
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: choose one from 0 to 65535")
    with running_rule_judge(options.port) as base_url:
        write(f"judge '{NAME}' at {base_url}; Ctrl-C ends it")
        while True:
            time.sleep(3600)


@dataclass(frozen=True)
class Grade:
    """A score from 1 to 10 and the rules' values behind it."""

    score: float
    rules: dict[str, float]

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.2f}" for name, value in self.rules.items())
        return f"{self.score:.1f} ({values or 'empty'})"


def grade(question: str, answer: str, reference: str | None = None) -> Grade:
    """Apply the rules to one answer."""
    words = _words(answer)
    if not words:
        return Grade(1.0, {})
    asked, said = _content(question), _content(answer)
    rules = {"on topic": min(1.0, 2 * _share(asked, said))}
    if reference is not None:
        rules["agreement"] = _share(_content(reference), said)
    rules["own words"] = min(1.0, 2 * _share(said, said - asked))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    rules["variety"] = len(set(triples)) / len(triples) if triples else 1.0
    rules["length"] = min(1.0, len(words) / MIN_WORDS, MAX_WORDS / len(words))
    return Grade(round(1 + 9 * math.prod(rules.values()) ** (1 / len(rules)), 1), rules)


def reply_to(prompt: str, *, structured: bool) -> str:
    """The stand-in's reply to a judge prompt, in the form that was asked for.

    Raises:
        ValueError: the prompt has no marked question and answers.
    """
    sections = parse_sections(prompt)
    question, reference = sections.get("question"), sections.get("reference")
    verdict: dict[str, Any]
    if question is not None and "answer" in sections:
        single = grade(question, sections["answer"], reference)
        summary, verdict, marked = f"The answer: {single}.", {"score": single.score}, f"{single.score:g}"
    elif question is not None and {"answer A", "answer B"} <= sections.keys():
        first, second = (grade(question, sections[f"answer {letter}"], reference) for letter in "AB")
        winner = "tie" if abs(first.score - second.score) < TIE_MARGIN else "AB"[second.score > first.score]
        summary, verdict = f"Answer A: {first}. Answer B: {second}.", {"verdict": winner}
        marked = "C" if winner == "tie" else winner
    else:
        raise ValueError("the message has no marked question with one answer or with answers A and B")
    if structured:
        return json.dumps({"explanation": f"{DISCLAIMER} {summary}", **verdict})
    return f"{DISCLAIMER}\n\n{summary}\n\n[[{marked}]]"


@contextmanager
def running_rule_judge(port: int = 0) -> Iterator[str]:
    """Run the server in a thread of this process; gives its base URL.

    Raises:
        VicunaError: the port is taken.
    """
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise VicunaError(f"port {port} is not free ({error.strerror}); choose another --port") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True, name=NAME)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a client may keep its connection open
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    """`GET /v1/models` and `POST /v1/chat/completions`, errors in OpenAI's form."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body in one packet
    timeout = 60.0

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._refuse(404, f"no such path: {self.path}")
        else:
            self._send(200, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "vicuna"}]})

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # the body stays unread
            self._refuse(413, f"content-length {length!r}: needs one, of at most {MAX_BODY_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        if self.path != "/v1/chat/completions":
            self._refuse(404, f"no such path: {self.path}")
            return
        try:
            request = json.loads(body)
            model, messages = request["model"], request["messages"]
            prompt = next(message["content"] for message in messages if message["role"] == "user")
            form = (request.get("response_format") or {}).get("type", "text")
            text = reply_to(prompt, structured=form == "json_schema")
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
            self._refuse(400, f"not a judge prompt: {type(error).__name__} {error}")
            return
        if model != NAME:
            self._refuse(404, f"no model {model!r} here, only '{NAME}'")
            return
        self._send(200, _completion(prompt, text))

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *_: Any) -> None:
        """Keep the terminal for the run that asks."""


def _completion(prompt: str, text: str) -> dict[str, Any]:
    """The reply in OpenAI's form; its usage counts words, since there is no tokenizer."""
    num_prompt, num_reply = len(prompt.split()), len(text.split())
    return {
        "id": f"chatcmpl-{content_hash(prompt)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": num_prompt, "completion_tokens": num_reply, "total_tokens": num_prompt + num_reply},
    }


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.'’]\w+)*", text.lower())


def _content(text: str) -> set[str]:
    """The words that carry the meaning, and the numbers."""
    return {word for word in _words(text) if word not in STOP_WORDS}


def _share(of: set[str], among: set[str]) -> float:
    """Which part of the first words occurs among the second; 1 if there are none to look for."""
    return len(of & among) / len(of) if of else 1.0
