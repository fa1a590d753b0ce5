"""Answers that repeat themselves end a conversation; what repeats for a reason stays."""

import pytest

from tests.data.builders import clean_answer, random_text, record, repair_rules, turns
from vicuna.data.step_kinds import Drop, Keep
from vicuna.data.steps.quality import LOOP_WORDS, find_repetition, prose, quality_step

LINE = "I am sorry, but I have to say that again."


PARAGRAPH = random_text(1, 60)


LOOPS = [
    ("repeated_words", "Fine.\n\n" + "the " * 200, "200 times in a row: the"),
    (
        "repeated_words",
        f"{random_text(2)}\n" + f"{LINE}\n" * 20,
        "20 times in a row: I am sorry but I have to say that again",
    ),
    ("repeated_words", f"{LINE} " * 40 + "Done. " + random_text(3), "40 times in a row: I am sorry"),
    ("repeated_words", f"{PARAGRAPH}\n\n" * 6, "6 times in a row: word"),
    ("repeated_words", "- Be kind.\n- Be brave.\n" * 40, "40 times in a row: Be kind Be brave"),
    ("repeated_words", "我很抱歉。" * 60, "60 times in a row: "),
    (
        "repeated_phrases",
        " ".join(f"{PARAGRAPH} {step}." for step in range(1000, 1008)),
        "81% of its phrases came before: word",
    ),
    ("repeated_characters", f"{random_text(4, 30)} no{'o' * 80}", "81 times o"),
    ("repeated_characters", "哈" * 50, "50 times 哈"),
]


@pytest.mark.parametrize(("rule", "answer", "evidence"), LOOPS)
def test_a_loop_ends_the_conversation_before_its_round(rule: str, answer: str, evidence: str) -> None:
    given = record("s: x", "u: one", f"a: {random_text(9)}", "u: two", f"a: {answer}", "u: three", "a: fine")
    outcome = quality_step().run(given)
    assert isinstance(outcome, Keep)
    assert turns(outcome.record) == turns(given)[:3]
    assert [(finding.rule, finding.turn) for finding in outcome.repairs] == [(rule, 4)]
    assert outcome.repairs[0].evidence.startswith(evidence)
    alone = quality_step().run(record("u: q", f"a: {answer}"))
    assert isinstance(alone, Drop)
    assert alone.finding.rule == rule


VERSES = [
    "a partridge in a pear tree", "two turtle doves and", "three French hens", "four calling birds",
    "five golden rings", "six geese a-laying", "seven swans a-swimming", "eight maids a-milking",
    "nine ladies dancing", "ten lords a-leaping", "eleven pipers piping", "twelve drummers drumming",
]  # fmt: skip


CAROL = "\n\n".join(
    f"On day {number} of Christmas my true love sent to me\n" + "\n".join(reversed(VERSES[: number + 1]))
    for number in range(12)
)


CHORUS = "\n".join(random_text(seed, 8) for seed in range(20, 24))


SONG = "\n\n".join(f"{random_text(seed, 30)}\n\n{CHORUS}" for seed in range(6))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Yes.",
        random_text(5, 3000),
        CAROL,
        SONG,
        f"{PARAGRAPH}\n\n" * 3,
        "Na na na nananana, nananana, hey Jude\n" * 6,
        "Row, row, row your boat, gently down the stream. " * 4,
        "```\n" + "for i in range(10): print(i)\n" * 100 + "```",
        "````md\n```\n" + f"{LINE}\n" * 100 + "```\n````",
        "> ```\n" + f"> {LINE}\n" * 100 + "> ```",
        "| name | value |\n|---|---|\n" + "| the same name | the same value |\n" * 100,
        "0 0 1 0 0 0 1 0 " * 100,
        "12.5, 13.5, 12.5\n" * 100,
        "=" * 300 + "\n" + "-" * 300 + "\n" + "_" * 300 + "\n" + ". " * 300,
        "Fill in: " + "_ " * 400,
        "No" + "o" * 40 + "!",
        "1" + "0" * 40,
        "\n".join(f"{number}. The capital of country {number} is city {number}." for number in range(100)),
        "\n\n".join(
            f"Question {number}: {random_text(number, 12)}\nAnswer: It depends on the case." for number in range(40)
        ),
    ],
)
def test_what_repeats_for_a_reason_stays(answer: str) -> None:
    given = record("u: q", f"a: {answer}", "u: and?", "a: fine")
    assert quality_step().run(given) == Keep(given)


def test_answers_may_repeat_each_other_and_questions_themselves() -> None:
    draft = random_text(6, 300)
    given = record(*(line for _ in range(12) for line in (f"u: {LINE * 50}", f"a: {draft}")))
    assert quality_step().run(given) == Keep(given)


def test_a_loop_counts_from_a_hundred_words_behind_the_first_round() -> None:
    assert find_repetition("one two three four " * (LOOP_WORDS // 4)) is None
    found = find_repetition("one two three four " * (LOOP_WORDS // 4 + 1))
    assert found is not None
    assert found.evidence == "26 times in a row: one two three four"


def test_prose_is_what_is_no_code_table_or_list_of_numbers() -> None:
    given = "One\n```py\ncode\n```\n> Two\n| a | b |\n1, 2, 3\n````\n```\nin\n````\nThree\n```\nopen"
    assert prose(given) == "One\nTwo\nThree"


def test_fewer_repeated_phrases_are_a_loop_if_asked_for() -> None:
    sentence = "the tram to the old harbour leaves from the other side"
    answer = " ".join(f"{sentence} w{n} x{n} y{n} z{n} " for n in range(14))  # not half of its phrases come again, 91
    assert repair_rules(clean_answer("quality", answer)) == []
    assert repair_rules(clean_answer("quality", answer, repeated_part=0.4)) == ["repeated_phrases"]
    assert repair_rules(clean_answer("quality", "la le li lo lu mi " * 30, repeated_part=1.0)) == ["repeated_words"]
