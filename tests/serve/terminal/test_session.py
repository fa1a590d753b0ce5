"""Which lines are commands of the terminal chat."""

import pytest

from vicuna.serve.terminal.session import read_command


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("/save a b.json", ("save", "a b.json")),
        ("!!regen", ("regen", "")),
        ("/help ", ("help", "")),
        (" /help", ("", "")),
        ("/etc/passwd is a file", ("", "")),
        ("!!unknown", ("", "")),
        ("hello /help", ("", "")),
    ],
)
def test_what_is_a_command(text: str, meaning: tuple[str, str]) -> None:
    assert read_command(text) == meaning
