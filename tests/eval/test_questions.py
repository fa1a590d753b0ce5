"""The shipped questions, and how files and selections are read."""

from collections import Counter
from pathlib import Path

import pytest

from vicuna.errors import UsageError, VicunaError
from vicuna.eval.questions import load_questions, select_questions
from vicuna.io.jsonl import write_jsonl
from vicuna.material import material

SHIPPED = load_questions(material("eval/questions.jsonl"))


def test_eighty_questions_ten_in_each_category_all_different() -> None:
    assert len(SHIPPED) == 80 and len({one.text for one in SHIPPED}) == 80
    assert Counter(one.category for one in SHIPPED) == dict.fromkeys(
        ("writing", "roleplay", "common-sense", "fermi", "counterfactual", "coding", "math", "knowledge"), 10
    )
    assert [one.question_id for one in SHIPPED] == list(range(1, 81))


def test_selection_is_even_and_grows() -> None:
    eight, twelve = (select_questions(SHIPPED, num_questions=n) for n in (8, 12))
    assert set(Counter(one.category for one in eight).values()) == {1}
    assert {one.question_id for one in eight} < {one.question_id for one in twelve}


def test_mt_bench_question_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "q.jsonl", [{"question_id": 9, "category": "math", "turns": ["1+1?"], "reference": ["2"]}])
    (one,) = load_questions(tmp_path / "q.jsonl")
    assert (one.text, one.reference) == ("1+1?", "2")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question_id": 1, "text": "a"}, {"question_id": 1, "text": "b"}], "question_id 1 occurs twice"),
        ([{"question_id": 1, "turns": ["a", "b"]}], "has 2 turns"),
        ([{"text": "a"}], "question_id is None"),
        ([{"question_id": 1}], "needs 'text'"),
        ([], "no questions"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(VicunaError, match=message):
        load_questions(tmp_path / "q.jsonl")


def test_bad_selections() -> None:
    with pytest.raises(UsageError, match=r"unknown category 'maths'; .*did you mean 'math'"):
        select_questions(SHIPPED, categories=["maths"])
    with pytest.raises(UsageError, match="--num-questions 81: choose between 1 and 80"):
        select_questions(SHIPPED, num_questions=81)
