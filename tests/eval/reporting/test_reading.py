"""Judgments without their texts, and the texts of a question read again from where they stand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.eval.builders import row
from vicuna.errors import VicunaError
from vicuna.eval.reporting import reading
from vicuna.eval.reporting.reading import Sources, load_judgments, read_judgments
from vicuna.eval.rows import Row, read_rows
from vicuna.io.jsonl import write_jsonl

MARK = "0123456789ab"


def prompt(question: str, first: str, second: str) -> str:
    sections = (("question", question), ("answer A", first), ("answer B", second))
    return "\n\n".join(f"[{title} {MARK}]\n{text}\n[end {title} {MARK}]" for title, text in sections)


def rows(num_questions: int, **more: Any) -> list[dict[str, Any]]:
    shown = {1: prompt("why", "one two", "three"), 2: prompt("why", "three", "one two")}
    return [
        row(n, order, "tie", **{f"g{order}_user_prompt": shown[order], **more})
        for n in range(num_questions)
        for order in (1, 2)
    ]


def test_texts_are_left_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write_jsonl(path, rows(3, first_reply="again"))
    judgments, texts = read_judgments([path])
    assert len(judgments) == 6 and all(one.reply == "" and one.user_prompt is None for one in judgments)
    assert all(one.first_reply == "" for one in judgments), "that it was asked again is known"
    assert texts.words() == {"m1": dict.fromkeys(range(3), 2), "m2": dict.fromkeys(range(3), 1)}
    with Sources([path], (), texts) as sources:
        whole = sources.with_texts(judgments[2:4])
        assert [one.reply for one in whole] == ["because <b>tie</b>"] * 2 and whole[0].question_id == 1
        assert sources.answers_to(1, ["m1", "m2"], whole) == {"m1": "one two", "m2": "three"}


def test_names_that_repeat_are_held_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "j.jsonl", rows(3))
    judgments = load_judgments([tmp_path / "j.jsonl"])
    for field in ("models", "judge", "category", "prompt_name", "prompt_hash", "usage"):
        values = [getattr(one, field) for one in judgments]
        assert len({id(value) for value in values}) == len(set(values)), field


def test_a_row_with_both_orders_named_the_other_way_round(tmp_path: Path) -> None:
    base = {"judge": ["gpt-4", "pair-v2"], "turn": 1, "question_id": 1}
    both = {"g1_judgment": "first", "g2_judgment": "second", "g1_winner": "model_1", "g2_winner": "tie"}
    path = tmp_path / "j.jsonl"
    one = {**base, **both, "model_1": "a", "model_2": "b"}
    write_jsonl(path, [one, {**one, "model_1": "b", "model_2": "a", "question_id": 2}])
    judgments, texts = read_judgments([path])
    assert {one.models for one in judgments} == {("a", "b")}
    with Sources([path], (), texts) as sources:
        whole = sources.with_texts(judgments)
    assert [one.reply for one in whole] == ["first", "second", "first", "second"]
    assert [(one.order, one.points) for one in whole] == [(1, 1.0), (2, 0.5), (2, 0.0), (1, 0.5)]


def test_each_row_is_parsed_once_for_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    def counted(path: Path, *, file: int = 0) -> Any:
        nonlocal parsed
        for one in read_rows(path, file=file):
            assert isinstance(one, Row)
            parsed += 1
            yield one

    monkeypatch.setattr(reading, "read_rows", counted)
    for num_questions in (10, 40):
        parsed = 0
        write_jsonl(tmp_path / "j.jsonl", rows(num_questions))
        read_judgments([tmp_path / "j.jsonl"])
        assert parsed == 2 * num_questions


def test_sections_of_the_same_question_and_answers_are_parsed_once(tmp_path: Path) -> None:
    more = {"question_hash": "q", "answers_hash": "a"}
    changed = rows(1, **more)
    changed[1]["g2_user_prompt"] = prompt("why", "x", "y")  # not looked at: the hashes say that it is the same
    write_jsonl(tmp_path / "j.jsonl", changed)
    assert read_judgments([tmp_path / "j.jsonl"])[1].words() == {"m1": {0: 2}, "m2": {0: 1}}
    del changed[0]["question_hash"], changed[1]["question_hash"]
    write_jsonl(tmp_path / "j.jsonl", changed)
    with pytest.raises(VicunaError, match="the answer of m1 to question 0 differs between judgments"):
        read_judgments([tmp_path / "j.jsonl"])


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write_jsonl(path, rows(2))
    judgments, texts = read_judgments([path])
    path.write_text(json.dumps({"x": 1}) + "\n")
    with pytest.raises(VicunaError, match="changed while it was read"), Sources([path], (), texts) as sources:
        sources.with_texts(judgments)
