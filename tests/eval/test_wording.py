"""Which words before a verdict give it, quote it, doubt it or take it back."""

import pytest

from vicuna.eval.wording import Context, context_before, is_caption, is_json_verdict, is_verdict, may_retract


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("", Context("", "", False, "", False)),
        ("B is right. So my verdict is ", Context("So my verdict is", "", False, "B is right.", True)),
        ("B is right.\n\nVerdict: ", Context("Verdict:", "", False, "B is right.", False)),
        ("My verdict is:\n\n", Context("", "My verdict is:", False, "", False)),
        ("## Final verdict\n\n", Context("", "Final verdict", True, "", False)),
        ("B is right.\n```\n", Context("", "", False, "B is right.", False)),
    ],
)
def test_context(text: str, context: Context) -> None:
    assert context_before(text + "[[B]]", len(text)) == context


@pytest.mark.parametrize(("words", "expected"), [("**Final verdict:** ", True), ("Verdict", True), ("My view:", False)])
def test_captions(words: str, expected: bool) -> None:
    assert is_caption(words) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I therefore choose ", True),
        ("Answer B is better: ", True),
        ("Answer A is better: ", False),
        ("I would not choose ", False),
        ("The weaker one is ", False),
        ("I cannot decide. ", False),
    ],
)
def test_what_gives_a_verdict(text: str, expected: bool) -> None:
    assert is_verdict(context_before(text, len(text)), "B") is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here is my evaluation:\n", True),
        ("My verdict in the requested format:\n", True),
        ("Answer B contains this:\n", False),
        ("For example:\n", False),
    ],
)
def test_what_introduces_a_json_verdict(text: str, expected: bool) -> None:
    assert is_json_verdict(context_before(text, len(text))) is expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("", False),
        ("It is exact and short.", False),
        ("Wait, B is right.", True),
        ("is the weaker one.", True),
        ("of the two.", True),
    ],
)
def test_what_may_retract(after: str, expected: bool) -> None:
    assert may_retract(after) is expected
