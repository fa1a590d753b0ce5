"""Options change what the steps do."""

from tests.data.builders import SHIPPED_REFUSAL, clean_answer, data_options, record, repair_rules
from vicuna.data.options import shipped_words
from vicuna.data.pipeline import make_pipeline
from vicuna.data.step_kinds import Keep


def test_limits_can_be_moved() -> None:
    long = SHIPPED_REFUSAL + " Sorry." * 60
    assert repair_rules(clean_answer("refusals", long)) == []
    assert repair_rules(clean_answer("refusals", long, max_refusal_characters=1000)) == ["refusal"]
    assert repair_rules(clean_answer("refusals", SHIPPED_REFUSAL, max_refusal_characters=20)) == []
    error = "Something went wrong. If this issue persists" + " wait" * 60
    assert repair_rules(clean_answer("errors", error)) == []
    assert repair_rules(clean_answer("errors", error, max_error_characters=1000)) == ["error_message"]
    doubtful = record("u: q", "a: I like pizza and gelato molto bene")  # Italian, at 61%
    for given, expected in (({}, "it"), ({"min_language_confidence": 0.7}, "und")):
        (step,) = make_pipeline(data_options(only=("language",), **given)).before
        outcome = step.run(doubtful)
        assert isinstance(outcome, Keep) and outcome.record.extra["language"] == expected


def test_shipped_words_are_those_of_a_file_without_comments() -> None:
    words = shipped_words("languages.txt")
    assert {"en", "de", "zh"} <= words
    assert not any("#" in word for word in words)
