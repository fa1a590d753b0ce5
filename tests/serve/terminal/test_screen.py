"""How much of a growing reply can be printed for good."""

import pytest

from vicuna.serve.terminal.screen import finished_length


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one\n\ntwo\n", "one\n\n"),
        ("one\n\ntw", ""),
        ("1. a\n\n2. b\n", ""),
        ("- a\n\n  more\n", ""),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nnext\n", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nx\n````\n\nnext\n", "````\n```\n\nx\n````\n\n"),
        ("> a\n\n> b\n", ""),
        ("", ""),
    ],
)
def test_only_blocks_that_later_text_cannot_change_are_finished(text: str, finished: str) -> None:
    assert text[: finished_length(text)] == finished
