"""Parts to one result: unique ids, and counts that must add up."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.builders import run_command
from vicuna.data.run.reduce import Counts, StepCount, UniqueIds
from vicuna.io.jsonl import read_jsonl


def test_ids_that_come_twice_get_a_number(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    turns = [[("user", f"question {n}"), ("assistant", f"answer {n}")] for n in range(5)]
    messages = [[{"role": role, "content": text} for role, text in pair] for pair in turns]
    ids = ["a", "a~2", "a", "b", "a"]
    rows = [{"id": name, "messages": turns} for name, turns in zip(ids, messages, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_command(path, "--output-dir", tmp_path / "out") == 0
    found = [(row["id"], row.get("original_id")) for row in read_jsonl(tmp_path / "out" / "records.jsonl")]
    assert found == [("a", None), ("a~2", None), ("a~2~", "a"), ("b", None), ("a~3", "a")]


def test_ids_are_assigned_anew_after_a_restart() -> None:
    unique = UniqueIds(["a", "b", "a"])
    assert [unique.assign(identifier) for identifier in "aba"] == ["a", "b", "a~2"]
    unique.restart()
    assert [unique.assign(identifier) for identifier in "aba"] == ["a", "b", "a~2"]


def test_counts_that_do_not_add_up_are_no_result() -> None:
    good = Counts(records_in=3, kept=2, dropped=1, records_out=2, rules=Counter(refusal=1))
    step = StepCount("refusals", 2, records_in=3, kept=2, dropped=1)
    good.check([step])
    for wrong in (
        replace(good, kept=3),
        replace(good, records_out=1),
        replace(good, rounds_in=1),
        replace(good, rules=Counter()),
    ):
        with pytest.raises(AssertionError):
            wrong.check([step])
    with pytest.raises(AssertionError):
        good.check([replace(step, kept=3)])
