"""The shipped material is what its README says, and cleaning does with it what is planned."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vicuna.data.__main__ import main
from vicuna.data.steps.answers import CODE
from vicuna.io.jsonl import read_json, read_jsonl
from vicuna.material import material

SAMPLE, IDENTITY = material("data/sharegpt_sample.json"), material("data/identity.jsonl")
EVERYDAY = material("data/everyday.jsonl")
MARKUP = re.compile(
    r"</?(?:p|div|span|pre|ul|ol|li|table|td|button|svg|strong|em|br|code)\b|katex|Copy code|&(?:lt|gt|amp|quot);"
)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("material") / "out"
    assert main([str(SAMPLE), str(IDENTITY), str(EVERYDAY), "--output-dir", str(out)]) == 0
    return out


def answers(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "assistant"]


def test_there_is_enough_of_it_and_ids_are_unique() -> None:
    sample, identity, everyday = read_json(SAMPLE), list(read_jsonl(IDENTITY)), list(read_jsonl(EVERYDAY))
    readme = (SAMPLE.parent / "README.md").read_text("utf-8")
    for count, kind in ((len(sample), "conversations"), (len(identity), "short dialogues"), (len(everyday), "short")):
        assert f"| {count} {kind} " in readme
    ids = [row["id"] for row in (*sample, *identity, *everyday)]
    assert len(set(ids)) == len(ids)
    assert sum(len(row["conversations"]) >= 4 for row in sample) > len(sample) / 2


def test_the_planned_drops_and_repairs_happen(cleaned: Path) -> None:
    fates = {row["id"]: row["rule"] for row in read_jsonl(cleaned / "dropped.jsonl")}
    assert fates == {
        "sample-0005": "duplicate",
        "sample-0012": "no_turns",
        "sample-0018": "no_answer",
        "sample-0031": "error_message",
        "sample-0045": "refusal",
        "sample-0058": "empty_question",
        "sample-0070": "error_message",
    }
    repairs = {(row["id"], row["rule"]) for row in read_jsonl(cleaned / "repairs.jsonl")}
    assert repairs == {
        ("sample-0024", "leading_answer"),
        ("sample-0038", "empty_answer"),
        ("sample-0051", "merged_turns"),
        ("sample-0064", "trailing_question"),
    }


def test_no_html_is_left_in_answers(cleaned: Path) -> None:
    for row in read_jsonl(cleaned / "records.jsonl"):
        for answer in answers(row):
            assert not MARKUP.search(CODE.sub("", answer)), (row["id"], answer)


def test_code_of_every_shape_comes_out_fenced(cleaned: Path) -> None:
    given = {row["id"]: json.dumps(row) for row in read_json(SAMPLE)}
    fences = {
        row["id"]: len(re.findall(r"^ *`{3,}\S*$", "\n".join(answers(row)), re.MULTILINE))
        for row in read_jsonl(cleaned / "records.jsonl")
    }
    for identifier, num_fences in fences.items():
        if identifier in given:
            num_boxes = given[identifier].count("whitespace-pre")
            assert num_fences >= 2 * num_boxes, identifier
    assert sum(fences.values()) > 100


def test_questions_stay_byte_for_byte(cleaned: Path) -> None:
    given = {
        row["id"]: [turn["value"] for turn in row["conversations"] if turn["from"] == "human"]
        for row in read_json(SAMPLE)
    }
    for row in read_jsonl(cleaned / "records.jsonl"):
        if row["id"] in given and row["id"] != "sample-0051":  # whose neighbouring questions are joined
            questions = [message["content"] for message in row["messages"] if message["role"] == "user"]
            assert questions == given[row["id"]][: len(questions)]


def test_identity_records_pass_untouched_and_say_vicuna(cleaned: Path) -> None:
    written = {row["id"]: row["messages"] for row in read_jsonl(cleaned / "records.jsonl")}
    for row in read_jsonl(IDENTITY):
        assert written[row["id"]] == row["messages"]
        assert any("Vicuna" in answer for answer in answers(row)), row["id"]


def test_everyday_records_pass_untouched_and_are_not_about_the_assistant(cleaned: Path) -> None:
    written = {row["id"]: row["messages"] for row in read_jsonl(cleaned / "records.jsonl")}
    for row in read_jsonl(EVERYDAY):
        assert written[row["id"]] == row["messages"]
        assert not re.search("vicuna|assistant", " ".join(answers(row)), re.IGNORECASE), row["id"]
