"""`vicuna data sample`: some records, chosen at random."""

import json
from pathlib import Path

import pytest

from tests.data.look.builders import fails, ids
from vicuna.data.__main__ import main
from vicuna.io.jsonl import read_jsonl


def test_a_sample_keeps_rows_and_order_and_depends_on_its_seed(tmp_path: Path, many: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        argv = ["sample", str(many), "--count", "10", "--seed", str(seed), "--output", str(tmp_path / f"{name}.jsonl")]
        assert main(argv) == 0
    first, again, other = ((tmp_path / f"{name}.jsonl").read_text() for name in "abc")
    assert first == again != other
    whole = list(read_jsonl(many / "records.jsonl"))
    chosen = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [item for item in whole if item in chosen] == chosen
    assert len(chosen) == 10


def test_a_sample_by_ratio_of_a_json_array(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "s.json").write_text(json.dumps([{"id": str(at), "conversations": turns} for at in range(8)], indent=1))
    assert main(["sample", str(tmp_path / "s.json"), "--ratio", "0.5", "--output", str(tmp_path / "o.jsonl")]) == 0
    assert len(ids(tmp_path / "o.jsonl")) == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count", "41"], "41 of 40 records cannot be chosen"),
        (["--ratio", "0.001"], "0 of 40 records cannot be chosen"),
        (["--ratio", "1.5"], "--ratio 1.5: give a number above 0, up to 1"),
        ([], "give either --count or --ratio"),
        (["--count", "1", "--ratio", "1"], "give either --count or --ratio"),
    ],
)
def test_samples_that_cannot_be(
    tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert words in fails(capsys, "sample", many, "--output", tmp_path / "o.jsonl", *flags)
    assert not (tmp_path / "o.jsonl").exists()
