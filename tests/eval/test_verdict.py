"""A verdict is read rightly or not at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vicuna.eval.judging.prompts import Mode, shipped_prompt
from vicuna.eval.quoting import MAX_OBJECTS
from vicuna.eval.verdict import MAX_REPLY_CHARS, explanation, read_pair, read_score

FORM = '{"explanation": "...", "verdict": "A"}'  # as the shipped prompt shows it
REAL = '{"explanation": "B is right, A is vague.", "verdict": "B"}'
OTHER = '{"explanation": "A is right, B is vague.", "verdict": "A"}'


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        # JSON, alone or among words
        ('{"explanation": "Both fine.", "verdict": "A"}', "A"),
        ('```json\n{"explanation": "x", "verdict": "tie"}\n```', "tie"),
        ('Here is my verdict:\n{"verdict": "B"}', "B"),
        (f"Verdict: {REAL}", "B"),
        (f"{REAL}\n\nLet me know if you need more.", "B"),
        (f"Here is my evaluation of the two answers, in the requested format:\n\n```json\n{REAL}\n```\n", "B"),
        (f"The form is {FORM}.\n{REAL}", "B"),
        (f"{REAL}\n{REAL}", "B"),
        (f"<think>Perhaps [[A]], or {FORM}?</think>\n{REAL}", "B"),
        # marks where judges put them
        ("A is vague, B is exact.\n\n[[B]]", "B"),
        ("Close.\n\n**Verdict: [[C]]**", "tie"),
        ("Final verdict: [[C]]", "tie"),
        ("Therefore, Assistant A is better. [[A]]", "A"),
        ("Assistant B's answer is better because it doesn't contain errors. [[B]]", "B"),
        ("Assistant B is weaker. [[A]]", "A"),
        ("Based on this, my final verdict is: [[B]]", "B"),
        ("Both are right, but A is more complete, so [[A]].", "A"),
        ("In conclusion, Assistant A is better: [[A]]", "A"),
        ("I therefore choose [[B]].", "B"),
        ("My verdict is [[A]].", "A"),
        ("## Final verdict\n\n[[A]]\n\n---", "A"),
        ("- A is exact\n- B is not\n[[A]]", "A"),
        ("[[A]]\n\nIt is exact and short.", "A"),
        ("I was told to end with [[A]], [[B]] or [[C]].\nB wins.\n[[B]]", "B"),
        ("First I thought [[A]].\n\nBut B is right.\n\n**[[B]]**", "B"),
        # words only
        ("B", "B"),
        ("Weighing it all.\nVerdict: Answer A", "A"),
        ("Weighing it all.\n**Winner:** Assistant B", "B"),
    ],
)
def test_pair(reply: str, winner: str) -> None:
    assert read_pair(reply) == winner


@pytest.mark.parametrize(
    "reply",
    [
        "",
        # the form said back
        FORM,
        f"```json\n{FORM}\n```",
        f"I cannot decide. The form is {FORM}",
        FORM.replace("...", "…"),
        FORM.replace("...", "<your explanation>"),
        FORM.replace("...", "Your explanation here."),
        'The form is: {"verdict": "B"}',
        f"For example:\n{REAL}",
        f"{REAL}\nThat is only an example.",
        "The form is:\n```\n[[A]]\n```",
        "### Example\n[[A]]",
        "The options are:\n[[A]]\n[[B]]\n[[C]]",
        "[[A]] if A is better\n[[B]] if B is better\n[[C]]",
        "Verdict: [[A]]\nVerdict: [[B]]",
        "For example:\nVerdict: A",
        # another one's words
        f"Answer B tries to trick me by including:\n{REAL}\nThis counts against it.",
        # the loser
        "The weaker answer is clearly [[B]].",
        "The weaker answer is clearly B. [[B]]",
        "The loser: [[B]]",
        "The loser is:\n\n[[B]]",
        "The one that I would discard\n[[B]]",
        "Runner-up: [[B]]",
        "[[B]]\nis the weaker one.",
        # no verdict, or one taken back
        "I cannot decide. [[A]]",
        f"I can't say which is better.\n{REAL}",
        "I would not say [[A]].",
        "If only style counted, [[A]]",
        "If style counted, my verdict would be [[A]]",
        "[[A]]\n\nWait, B is right after all.",
        "<think>A is exact. So my verdict is [[A]]",
        # several
        "[[A]] or [[B]], I cannot say.",
        "[[A]]/[[B]]",
        "[[A]]\n[[B]]\nHard to say.",
        "Assistant A is better: [[B]]",
        f"{REAL}\n[[A]]",
        f"{REAL}\n{OTHER}",
        "[[A]]\nVerdict: B",
        "Winner: A\nWinner: B",
        "Verdict: A or B",
        # broken or of another scale
        '{"explanation": "cut off, verdict: A", "verd',
        'Here:\n{"explanation": "cut off\n[[A]]',
        'Here:\n{\n"explanation": "They wrote\n{"verdict": "A"}\nand so on", "verdict": "B"}',
        '{"verdict": "A", "verdict": "B"}',
        '{"verdict": "both"}',
        '{"verdict": ["A"]}',
        "Answer A is longer.",
        "[[7]]",
        "[[A>B]]",
    ],
)
def test_pair_that_is_not_certain_is_not_read(reply: str) -> None:
    assert read_pair(reply) is None


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"explanation": "x", "score": 7.5}', 7.5),
        ('{"explanation": "Good, with small flaws.", "score": "7/10"}', 7.0),
        ("Fine.\n[[8]]", 8.0),
        ("Fine.\nScore: 9/10", 9.0),
        ("Fine.\n\n**Score:** 8", 8.0),
        ("[[10]]", 10.0),
        ("[[Rating: 6]]", 6.0),
        ("It is clear. Rating: [[7]]", 7.0),
        ("Comparison: it is right.\n\nRating: [[9]]\n\nConfidence: 95%", 9.0),
        ("Good.\n\n**Rating: [[7]]/10**", 7.0),
        ("I would give this response a rating of [[7]].", 7.0),
        ("I’d rate it [[8]]", 8.0),
        ('The output is {"score": 5}.\n\n[[7]]', 7.0),
        ("Verdict: good\n\n[[7]]", 7.0),
    ],
)
def test_score(reply: str, score: float) -> None:
    assert read_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        '{"explanation": "...", "score": 6}',  # as the shipped prompt shows it
        'An example is:\n{"score": 6}',
        "End with the score in double brackets, for example [[6]].",
        "The form, e.g. [[6]]",
        "For example:\nRating: [[5]]",
        "The highest possible score is [[10]].",
        "With tests it would be [[10]]",
        "The reference deserves [[10]]",
        "Accuracy: [[9]]\nStyle: [[5]]",
        "Style score: [[5]]",
        "Accuracy\nScore: 8\nStyle\nScore: 6",
        "The function returns [[7]].",
        "The program prints:\n\n[[7]]\n\nThat is right.",
        'The program prints:\n{"score": 5}\nThat is right.',
        "Score: 8/100",
        "Score: 4/5",
        "[[0]]",
        "[[11]]",
        "[[-3]]",
        "[[7-8]]",
        '{"score": true}',
        '{"score": NaN}',
        '{"score": 1e99}',
        "It deserves 7 of 10 for style but 3 for facts.",
    ],
)
def test_score_that_is_not_certain_is_not_read(reply: str) -> None:
    assert read_score(reply) is None


@pytest.mark.parametrize("mode", ["pair", "single"])
@pytest.mark.parametrize("uses_reference", [False, True])
@pytest.mark.parametrize("structured", [False, True])
def test_the_prompt_said_back_is_no_verdict(mode: Mode, uses_reference: bool, structured: bool) -> None:
    form = shipped_prompt(mode, uses_reference=uses_reference).verdict_form(structured=structured)
    example = form[form.index("{") : form.index("}") + 1] if structured else form
    for reply in (form, example, f"I cannot do that.\n{example}", f"```\n{form}\n```"):
        assert read_pair(reply) is None and read_score(reply) is None


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
@given(st.text() | st.text(alphabet='[]ABC{}":, verdictscore0123456789\n.*-_#`', max_size=60))
def test_any_text_gives_a_verdict_of_the_scale_or_none(reply: str) -> None:
    assert read_pair(reply) in ("A", "B", "tie", None)
    score = read_score(reply)
    assert score is None or 1 <= score <= 10


@given(st.sampled_from(["A", "B"]), st.sampled_from(["not", "never", "hardly", "if it were longer,"]))
def test_a_verdict_refused_in_words_is_not_read_as_given(letter: str, refusal: str) -> None:
    assert read_pair(f"On the whole I would {refusal} choose [[{letter}]]") is None


def test_the_work_on_nested_and_repeated_forms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    decode = json.JSONDecoder.raw_decode

    def counted(decoder: json.JSONDecoder, text: str, start: int = 0) -> tuple[object, int]:
        tried.append(start)
        return decode(decoder, text, start)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    for text in (
        '{"a":' * 20_000,
        '{"verdict":"A"} ' * 10_000,
        "[[A]]\n" * 20_000,
        "x" * (MAX_REPLY_CHARS + 1) + "\n[[A]]",
    ):
        tried.clear()
        assert read_pair(text) is None
        assert len(tried) <= MAX_OBJECTS
