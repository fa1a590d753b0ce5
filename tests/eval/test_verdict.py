"""A verdict is read rightly or not at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vicuna.eval.verdict import explanation, read_pair, read_score


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        ('{"explanation": "Both fine.", "verdict": "A"}', "A"),
        ('```json\n{"explanation": "x", "verdict": "tie"}\n```', "tie"),
        ('Here is my verdict:\n{"verdict": "B"}', "B"),
        ("A is vague, B is exact.\n\n[[B]]", "B"),
        ("Close.\n\n**Verdict: [[C]]**", "tie"),
        ("I was told to end with [[A]], [[B]] or [[C]].\nB wins.\n[[B]]", "B"),
        ("My verdict is [[A]].", "A"),
        ("B", "B"),
        ("Weighing it all.\nVerdict: Answer A", "A"),
        # not certain, so not read
        ("", None),
        ("[[A]] or [[B]], I cannot say.", None),
        ("I would not say [[A]].", None),
        ("If only style counted, [[A]]", None),
        ("[[A]]\n[[B]]\nHard to say.", None),
        ('{"explanation": "cut off, verdict: A", "verd', None),
        ('{"verdict": "A", "verdict": "B"}', None),
        ('{"verdict": "both"}', None),
        ('{"verdict": ["A"]}', None),
        ("Answer A is longer.", None),
        ("[[7]]", None),
    ],
)
def test_pair(reply: str, winner: str | None) -> None:
    assert read_pair(reply) == winner


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"explanation": "x", "score": 7.5}', 7.5),
        ("Fine.\n[[8]]", 8.0),
        ("Fine.\nScore: 9/10", 9.0),
        ("[[10]]", 10.0),
        ("[[Rating: 6]]", 6.0),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[-3]]", None),
        ("[[7-8]]", None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": 1e99}', None),
        ("It deserves 7 of 10 for style but 3 for facts.", None),
    ],
)
def test_score(reply: str, score: float | None) -> None:
    assert read_score(reply) == score


PROSE = st.lists(
    st.sampled_from(
        [
            "Answer A is precise.",
            "Answer B is longer, but padded.",
            "The score could be 3 or 9.",
            "One might say [[A]] at first.",
            "It is not [[B]].",
            "The form is [[A]], [[B]] or [[C]].",
            'A reply such as {"verdict": "B"} is asked for.',
            "Verdict: to follow.",
            "",
        ]
    ),
    max_size=6,
).map("\n".join)
WINNERS = {"A": "A", "B": "B", "C": "tie"}


@given(PROSE, st.sampled_from(sorted(WINNERS)), st.sampled_from(["[[{}]]", "**[[{}]]**", "Verdict: [[{}]]", "[[{}]]."]))
def test_last_line_wins_over_everything_quoted_before(prose: str, letter: str, form: str) -> None:
    assert read_pair(f"{prose}\n\n{form.format(letter)}") == WINNERS[letter]


@given(PROSE, st.sampled_from(["A", "B", "tie"]), st.integers(min_value=0))
def test_json_is_read_whole_and_never_when_cut(prose: str, winner: str, cut: int) -> None:
    reply = json.dumps({"explanation": prose, "verdict": winner})
    assert read_pair(reply) == winner and explanation(reply) == prose
    assert read_pair(reply[: cut % len(reply)]) is None


@given(PROSE, st.floats(min_value=1, max_value=10).map(lambda value: round(value, 1)))
def test_marked_score(prose: str, score: float) -> None:
    assert read_score(f"{prose}\n[[{score:g}]]") == score


@settings(max_examples=300)
@given(st.text() | st.text(alphabet='[]ABC{}":, verdictscore0123456789\n.*-', max_size=60))
def test_any_text_gives_a_verdict_of_the_scale_or_none(reply: str) -> None:
    assert read_pair(reply) in ("A", "B", "tie", None)
    score = read_score(reply)
    assert score is None or 1 <= score <= 10


@given(st.sampled_from(["A", "B"]), st.sampled_from(["not", "never", "hardly", "if it were longer,"]))
def test_a_verdict_refused_in_words_is_not_read_as_given(letter: str, refusal: str) -> None:
    assert read_pair(f"On the whole I would {refusal} choose [[{letter}]]") is None
