"""Generated ShareGPT pages for the benches: seeded conversations with real sentences and real code.

Sentences and functions are those of the Python standard library of the interpreter that runs this, so words have the
frequencies of real text (token caches and shingles work as they do on real data) and nothing has to be shipped. The
answers' Markdown is drawn as chat pages of three years draw it (`tests/data/html/chat_page.py`), with and without line
breaks between blocks.
"""

import ast
import json
import random
import re
import sys
import sysconfig
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.data.html.chat_page import Page, Year  # noqa: E402

YEARS: tuple[Year, ...] = (2023, 2024, 2025)
PAGES = tuple(Page(year, line_breaks) for year in YEARS for line_breaks in (False, True))
FORMULAS = (
    r"\frac{a + b}{2} \geq \sqrt{ab}",
    r"\sum_{i=1}^{n} x_i^2 < \infty",
    r"e^{i\pi} + 1 = 0",
    r"\int_0^1 f(x)\,dx = \lim_{n \to \infty} \frac{1}{n}\sum_{k} f(k/n)",
    r"P(A \mid B) = \frac{P(B \mid A)\, P(A)}{P(B)}",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
)


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and the page that shows it."""

    markdown: str
    page: Page

    @property
    def html(self) -> str:
        """The page's HTML."""
        return self.page.draw(self.markdown)


@cache
def material() -> tuple[list[str], list[str]]:
    """Sentences and functions of the standard library."""
    sentences: dict[str, None] = {}
    functions: dict[str, None] = {}
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(path for pattern in ("*.py", "*/*.py") for path in folder.glob(pattern)):
        if {"test", "tests", "idle_test", "site-packages", "lib2to3"} & set(path.relative_to(folder).parts):
            continue
        try:
            text = path.read_text("utf-8")
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue
        lines = text.splitlines(keepends=True)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                words = " ".join(paragraph.split())
                if re.fullmatch(r"[A-Z][\w ,'()-]{30,200}[.!]", words):
                    sentences[words] = None
            if isinstance(node, ast.FunctionDef) and 4 <= (node.end_lineno or 0) - node.lineno <= 30:
                functions[textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))] = None
    return list(sentences), list(functions)


class Writer:
    """Writes conversations; the same seed writes the same ones."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.sentences, self.functions = material()

    def prose(self, num_sentences: int) -> str:
        """Sentences, some words of them marked."""
        words = " ".join(self.draw.choices(self.sentences, k=num_sentences)).split(" ")
        for _ in range(self.draw.randint(0, 2)):
            place = self.draw.randrange(len(words))
            if words[place].isalpha():
                words[place] = self.draw.choice(("**{}**", "*{}*", "`{}`", r"\( {}_1^2 \)")).format(words[place])
        return " ".join(words)

    def code(self) -> str:
        """A fenced function; now and then without its language, or in another one's clothes."""
        language = self.draw.choices(("python", "", "javascript", "bash", "c++"), (70, 10, 8, 8, 4))[0]
        return f"```{language}\n{self.draw.choice(self.functions).rstrip()}\n```"

    def items(self, depth: int = 0) -> str:
        """A list, bulleted or numbered; some items hold a list or code of their own."""
        is_ordered, is_loose = self.draw.random() < 0.5, self.draw.random() < 0.4
        lines = []
        for number in range(1, self.draw.randint(3, 7)):
            mark = f"{number}. " if is_ordered else "- "
            text = self.draw.choice(self.sentences)
            if self.draw.random() < 0.5:
                first, _, rest = text.partition(" ")
                text = f"**{first}**: {rest}"
            if depth == 0 and self.draw.random() < 0.12:
                text += ("\n\n" if is_loose else "\n") + self.draw.choice((self.items, lambda _: self.code()))(1)
            lines.append(mark + textwrap.indent(text, " " * len(mark)).lstrip())
        return ("\n\n" if is_loose else "\n").join(lines)

    def table(self) -> str:
        """A table of words."""
        width = self.draw.randint(2, 4)
        words = [sentence.split()[0] for sentence in self.draw.choices(self.sentences, k=width * 5)]
        rows = ["| " + " | ".join(words[start : start + width]) + " |" for start in range(0, len(words), width)]
        return "\n".join([rows[0], "| " + " | ".join(["---"] * width) + " |", *rows[1:]])

    def block(self) -> str:
        """One block of an answer."""
        kind = self.draw.choices(
            ("prose", "list", "code", "table", "heading", "formula", "quote"), (46, 20, 18, 4, 6, 4, 2)
        )[0]
        if kind == "prose":
            return self.prose(self.draw.randint(1, 4))
        if kind == "list":
            return self.items()
        if kind == "code":
            return self.code()
        if kind == "table":
            return self.table()
        if kind == "heading":
            return f"{'#' * self.draw.randint(2, 4)} {self.draw.choice(self.sentences).rstrip('.')}"
        if kind == "formula":
            return f"\\[ {self.draw.choice(FORMULAS)} \\]"
        return f"> {self.prose(1)}"

    def answer(self) -> Answer:
        """An answer of one to sixteen blocks, on one of the pages."""
        num_blocks = min(16, 1 + int(self.draw.expovariate(0.18)))
        blocks = [self.prose(self.draw.randint(1, 3)), *(self.block() for _ in range(num_blocks - 1))]
        kept = [  # two lists side by side would be one
            block
            for before, block in zip(["", *blocks], blocks, strict=False)
            if not (_is_list(before) and _is_list(block))
        ]
        return Answer("\n\n".join(kept), self.draw.choice(PAGES))

    def question(self) -> str:
        """A question; some paste code."""
        text = " ".join(self.draw.choices(self.sentences, k=self.draw.choice((1, 1, 1, 2, 4))))
        return f"{text}\n\n{self.draw.choice(self.functions)}" if self.draw.random() < 0.1 else text

    def conversation(self, number: int) -> dict[str, Any]:
        """A ShareGPT record: one to twenty rounds, answers as HTML."""
        num_rounds = min(20, 1 + int(self.draw.expovariate(0.45)))
        turns = []
        for _ in range(num_rounds):
            turns += [{"from": "human", "value": self.question()}, {"from": "gpt", "value": self.answer().html}]
        return {"id": f"{self.draw.randrange(16**6):06x}{number}", "conversations": turns}


def _is_list(block: str) -> bool:
    return re.match(r"(?:[-*] |\d+\. )", block) is not None


def conversations(num: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations, of which 2% come twice, 2% a second time with a changed word, and 1% are errors of the page."""
    writer = Writer(seed)
    made: list[dict[str, Any]] = []
    for number in range(num):
        chance = writer.draw.random()
        if made and chance < 0.02:
            made.append({**writer.draw.choice(made), "id": f"again{number}"})
        elif made and chance < 0.04:
            copy = json.loads(json.dumps(writer.draw.choice(made)))
            copy["conversations"][0]["value"] += " Please."
            made.append({**copy, "id": f"near{number}"})
        elif chance < 0.05:
            error = "<p>Too many requests in 1 hour. Try again later.</p>"
            turns = [{"from": "human", "value": writer.question()}, {"from": "gpt", "value": error}]
            made.append({"id": f"error{number}", "conversations": turns})
        else:
            made.append(writer.conversation(number))
    return made
