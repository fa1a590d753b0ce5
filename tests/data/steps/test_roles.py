"""Roles in order, and records that cannot be put in order."""

import pytest

from tests.data.builders import findings, kept, run_step
from vicuna.data.step_kinds import Drop


@pytest.mark.parametrize(
    ("lines", "expected", "found"),
    [
        (["a: hi", "u: q", "a: r"], ["u: q", "a: r"], [("leading_answer", 0)]),
        (["u: q", "a: r", "u: thanks"], ["u: q", "a: r"], [("trailing_question", 2)]),
        (["u: q", "u: more", "a: r"], ["u: q\n\nmore", "a: r"], [("merged_turns", 1)]),
        (["u: q", "u: q", "a: r"], ["u: q", "a: r"], [("repeated_turn", 1)]),
        (["u: q", "a: r", "a: s"], ["u: q", "a: r\n\ns"], [("merged_turns", 2)]),
        (["u: q", "a: ", "a: s"], ["u: q", "a: s"], [("merged_turns", 2)]),
        (["s: be kind", "u: q", "a: r"], ["s: be kind", "u: q", "a: r"], []),
        (["u: q", "s: be kind", "a: r"], ["u: q", "a: r"], [("misplaced_system", 1)]),
        (["u: q", "a: call", "t: 1", "t: 2", "a: r"], ["u: q", "a: call", "t: 1", "t: 2", "a: r"], []),
    ],
)
def test_roles_are_repaired(lines: list[str], expected: list[str], found: list[tuple[str, int]]) -> None:
    outcome = run_step("roles", *lines)
    assert kept(outcome) == expected
    assert findings(outcome) == found


@pytest.mark.parametrize(
    ("lines", "rule"),
    [([], "no_turns"), (["u: q"], "no_answer"), (["a: r"], "no_question"), (["s: x", "a: r", "u: q"], "no_answer")],
)
def test_roles_that_cannot_be_repaired_drop_the_record(lines: list[str], rule: str) -> None:
    assert findings(run_step("roles", *lines))[-1][0] == rule
    assert isinstance(run_step("roles", *lines), Drop)
