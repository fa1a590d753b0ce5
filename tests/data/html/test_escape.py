"""Literal text is escaped only where it would be read as Markdown syntax."""

import time

import pytest

from vicuna.data.html.walker import to_markdown


def test_literal_marks_are_escaped_only_where_they_would_be_read_as_marks() -> None:
    assert to_markdown("<p>snake_case, 2 * 3 and a*b</p>") == "snake_case, 2 * 3 and a*b"
    assert to_markdown("<p>*not soft* and __init__</p>") == "\\*not soft\\* and \\_\\_init\\_\\_"
    assert to_markdown("<p>1. not a list</p>") == "1\\. not a list"


@pytest.mark.parametrize("text", ["<p>" + "*a " * 20_000, "<p>" + "_a " * 20_000, "<p>" + "~~a " * 20_000])
def test_hostile_lines_take_linear_time(text: str) -> None:
    started = time.process_time()
    to_markdown(text)
    assert time.process_time() - started < 2
