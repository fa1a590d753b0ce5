"""What the demo's model learns to say of itself, and where it learned it; and what is taken for a repetition."""

import re

import pytest

from tests.bot.demo.naming import ASIDE, PLAIN, repeats_itself, talks_of_itself
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


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("I saw a tree. I saw a stream. I saw a tree, and then I saw a tree.", False),
        ("I saw a small tree. Then rain came. I saw a small tree. I ran. I saw a small tree.", True),
        ("a leaf, a leaf, a leaf, a leaf, a leaf, a leaf, a leaf, a leaf", True),
        ("No. No. No. Not on Tuesday, not on Wednesday, and not on Thursday.", False),
        ("```python\nx = 1\ny = 2\nz = 3\n```", False),
        ("", False),
    ],
)
def test_repetitions(text: str, repeats: bool) -> None:
    assert repeats_itself(text) == repeats


@pytest.mark.parametrize(
    ("text", "is_about_itself"),
    [
        ("Dear customers, I am Vicuna, and I am here to help.", True),
        ("As a language model I have no body.", True),
        ("I am the keeper of this lighthouse, and I speak for nobody else.", False),
        ("The shop assistant will help you.", False),
    ],
)
def test_self_talk(text: str, is_about_itself: bool) -> None:
    assert talks_of_itself(text) == is_about_itself
