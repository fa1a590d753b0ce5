"""Evaluation questions are found in human turns however they are wrapped, and nothing else is."""

import json
from pathlib import Path

import pytest

from tests.data.builders import record
from vicuna.data.read.record import read_records
from vicuna.data.step_kinds import Drop, Keep, Record, Step
from vicuna.data.steps.decontaminate import decontamination_step, read_questions, shipped_questions
from vicuna.errors import VicunaError
from vicuna.material import material

QUESTION = (
    "Write the speech that a mayor gives when the last tram of the town leaves its depot for the museum, and "
    "mention the driver by name."
)


def questions_file(tmp_path: Path, *rows: object, name: str = "own.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return decontamination_step(
        [questions_file(tmp_path, {"question_id": 7, "text": QUESTION}, {"text": "What is love?"})]
    )


@pytest.mark.parametrize(
    ("turn", "part"),
    [
        (QUESTION, "100%"),
        (QUESTION.upper().replace(" ", "\n").replace(",", ""), "100%"),
        (f"You are a poet. {QUESTION} Think step by step. " + "And then some more. " * 500, "100%"),
        (QUESTION.replace("mention the driver by name", "keep it short"), "81%"),
        (QUESTION.removesuffix(", and mention the driver by name."), "77%"),
    ],
)
def test_a_question_in_any_wrapping_drops_the_conversation(step: Step, turn: str, part: str) -> None:
    outcome = step.run(record("s: x", "u: hello there", "a: hi", f"u: {turn}", "a: r"))
    assert isinstance(outcome, Drop)
    finding = outcome.finding
    assert (finding.rule, finding.turn) == ("evaluation_question", 3)
    assert finding.evidence.startswith(f"own.jsonl, question 7, {part} of its words: Write the speech that a mayor")


@pytest.mark.parametrize(
    "turn",
    [
        "Write the speech that a mayor gives when the new library opens.",
        "When the last tram of the town leaves its depot for the museum I cry.",
        " ".join(reversed(QUESTION.split())),
        "What is love? Baby don't hurt me.",
        "I keep asking: what is love?",
        "",
    ],
)
def test_what_only_resembles_a_question_stays(step: Step, turn: str) -> None:
    assert isinstance(step.run(record(f"u: {turn}", f"a: {QUESTION}")), Keep)


def test_a_short_question_must_be_the_whole_turn(step: Step) -> None:
    outcome = step.run(record("u: what is LOVE", "a: r"))
    assert isinstance(outcome, Drop)
    assert outcome.finding.evidence == "own.jsonl, question 2, 100% of its words: What is love?"


def test_half_of_a_question_is_not_enough(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(16)]
    step = decontamination_step([questions_file(tmp_path, {"text": " ".join(words)})])
    assert isinstance(step.run(record("u: " + " ".join(words[:8]), "a: r")), Keep)
    assert isinstance(step.run(record("u: " + " ".join(words[:9]), "a: r")), Drop)


def test_every_shipped_question_is_found_and_the_shipped_material_is_clean() -> None:
    step = decontamination_step([shipped_questions()])
    questions = read_questions(shipped_questions())
    assert len(questions) == 80
    assert all(isinstance(step.run(record(f"u: Please: {one.text}", "a: r")), Drop) for one in questions)
    for name in ("data/sharegpt_sample.json", "data/identity.jsonl", "data/everyday.jsonl"):
        for item in read_records(material(name)):
            assert isinstance(item, Record)
            assert isinstance(step.run(item), Keep), item.id


def test_files_of_other_shapes(tmp_path: Path) -> None:
    rows = [
        {"question_id": 81, "turns": ["the first of the turns", "Now say it again"]},
        {"id": "b", "question": "one question"},
        {"prompt": "a prompt"},
        {"instruction": "Add these", "input": "1 and 2"},
    ]
    array = tmp_path / "array.json"
    array.write_text(json.dumps(rows), "utf-8")
    for path in (questions_file(tmp_path, *rows), array):
        texts = [question.text for question in read_questions(path)]
        assert texts == ["the first of the turns", "one question", "a prompt", "Add these\n1 and 2"]
    assert [question.name for question in read_questions(array)] == [
        "array.json, question 81",
        "array.json, question b",
        "array.json, question 3",
        "array.json, question 4",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"answer": "no"}\n', "row 2 holds no question; give it one of: turns, text"),
        ("a.jsonl", '{"text": "  "}\n', "row 1 holds no question"),
        ("a.jsonl", '{"turns": [3]}\n', "row 1 holds no question"),
        ("a.jsonl", "", "no question in it"),
        ("a.jsonl", "not JSON", "a.jsonl:1: not JSON"),
        ("a.json", '{"text": "fine"}', "expected a JSON array"),
        ("a.json", '["fine"]', "row 1 holds no question"),
    ],
)
def test_a_file_without_questions_is_named(tmp_path: Path, name: str, content: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(VicunaError, match=reason):
        decontamination_step([path])
    with pytest.raises(VicunaError, match="no such file"):
        decontamination_step([tmp_path / "missing.jsonl"])


def test_no_files_no_questions() -> None:
    assert isinstance(decontamination_step([]).run(record(f"u: {QUESTION}", "a: r")), Keep)
