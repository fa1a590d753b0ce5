"""Spans that stand alone, and those that are part of something longer."""

import pytest

from vicuna.data.privacy.spans import is_standalone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", True),
        ("(12).", True),
        ("x 12, y", True),
        ("-12-", True),  # a joiner without a number beside it
        ("x12", False),
        ("12x", False),
        ("_12", False),
        ("3.12", False),
        ("12-3", False),
        ("3:12", True),  # not a joiner
    ],
)
def test_a_number_stands_alone(text: str, expected: bool) -> None:
    start = text.index("12")
    assert is_standalone(text, start, start + 2, ".-") is expected
