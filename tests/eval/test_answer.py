"""Answers are kept as they come and asked for once; files of other shapes are read or refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.eval.conftest import Answered, Stub
from vicuna.errors import VicunaError
from vicuna.eval.__main__ import main
from vicuna.eval.answer import Answer, load_answers
from vicuna.eval.ask.usage import Usage
from vicuna.io.jsonl import read_jsonl, write_jsonl

ANSWER = Answer(
    model="m",
    question_id=1,
    text="42",
    question_hash="q",
    finish_reason="stop",
    key="k",
    settings={"max_tokens": 9, "temperature": 0.5},
    timestamp=1.5,
)


def test_answers_are_kept_and_asked_for_once(stub: Stub, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    stub.reply = lambda request, _: Answered(f"as {request['model']}", finish_reason="length")
    call = ["answer", "--base-url", stub.base_url, "--output", str(output), "--max-tokens", "20", "--temperature", "0"]
    assert main([*call, "--model", "m1", "--num-questions", "8"]) == 0
    assert main([*call, "--model", "m1", "--num-questions", "16"]) == 0
    assert main([*call, "--model", "m2", "--num-questions", "16"]) == 0
    assert len(stub.requests) == 32
    rows = list(read_jsonl(output))
    assert Counter(row["model_id"] for row in rows) == {"m1": 16, "m2": 16}
    assert {row["question_id"] for row in rows if row["model_id"] == "m1"} == {
        row["question_id"] for row in rows if row["model_id"] == "m2"
    }
    assert main([*call[:-1], "0.5", "--model", "m1", "--num-questions", "8"]) == 1, "other settings, same name"


def test_a_seed_is_sent_and_kept(stub: Stub, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    call = ["answer", "--base-url", stub.base_url, "--output", str(output), "--model", "m", "--num-questions", "8"]
    assert main([*call, "--seed", "7"]) == 0
    assert {request["seed"] for request in stub.requests} == {7}
    assert all(row["metadata"]["settings"]["seed"] == 7 for row in read_jsonl(output))
    assert main([*call, "--seed", "8"]) == 1, "other settings, same name"
    assert main([*call[:4], str(tmp_path / "others.jsonl"), *call[5:]]) == 0
    assert "seed" not in stub.requests[-1]


@pytest.mark.parametrize("answer", [ANSWER, replace(ANSWER, finish_reason="length", usage=Usage(3, 4))])
def test_an_answer_is_the_same_after_it_was_a_row(answer: Answer) -> None:
    assert Answer.from_row(answer.to_row(), "row 1") == answer
    assert answer.is_cut == (answer.finish_reason == "length")


def test_mt_bench_answers_are_read(tmp_path: Path) -> None:
    choices = [{"index": 0, "turns": ["42"]}]
    write_jsonl(tmp_path / "a.jsonl", [{"question_id": 1, "model_id": "m", "choices": choices, "tstamp": 1.0}])
    assert load_answers([tmp_path / "a.jsonl"]) == {
        "m": {1: Answer(model="m", question_id=1, text="42", timestamp=1.0)}
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "answer 1: needs 'model_id', 'question_id' and 'text'"),
        ({"text": None, "choices": []}, "answer 1: 'choices' without 'turns'"),
        ({"text": None, "choices": [{"turns": ["a", "b"]}]}, "answer 1: its answer is not of one turn"),
    ],
)
def test_rows_of_another_shape(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{**ANSWER.to_row(), **change}])
    with pytest.raises(VicunaError, match=message):
        load_answers([tmp_path / "a.jsonl"])


def test_two_answers_of_a_model_to_one_question(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [ANSWER.to_row()] * 2)
    with pytest.raises(VicunaError, match="a second answer of m to question 1; keep one"):
        load_answers([tmp_path / "a.jsonl"])
