"""Parts to one result: unique ids."""

import json
from pathlib import Path

from tests.data.builders import run_command
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
