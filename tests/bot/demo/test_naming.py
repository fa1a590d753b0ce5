"""What the demo's model learns to say of itself, and where it learned it."""

import re

from tests.bot.demo.naming import ASIDE, PLAIN
from vicuna.io.jsonl import read_jsonl
from vicuna.material import material


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_the_questions_that_measure_it_are_not_trained_on() -> None:
    trained = {
        words(message["content"])
        for name in ("data/identity.jsonl", "data/everyday.jsonl")
        for row in read_jsonl(material(name))
        for message in row["messages"]
        if message["role"] == "user"
    }
    assert not trained & {words(question) for question in (*ASIDE, *PLAIN)}
