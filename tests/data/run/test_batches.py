"""Batches of raw records, and what a part keeps of them."""

import io
import json
from pathlib import Path

import pytest

from tests.data.builders import data_options, messages_row
from vicuna.data.read.sources import find_sources
from vicuna.data.run import batches
from vicuna.data.run.batches import clean_batch, cut_batches, forget_pipeline, read_keys, read_summary
from vicuna.io.jsonl import write_jsonl


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, ...]:
    """Two files of five records."""
    for name in "ab":
        write_jsonl(tmp_path / f"{name}.jsonl", [messages_row(f"{name}{number}", "q", "r") for number in range(5)])
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def test_batches_hold_every_record_once_in_order(paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_RECORDS", 3)
    found = list(cut_batches(find_sources(paths)))
    assert [batch.index for batch in found] == [0, 1, 2, 3]
    records = [f"{raw.file}:{raw.number}" for batch in found for raw in batch.raws]
    assert records == [f"{name}.jsonl:{number}" for name in "ab" for number in range(1, 6)]
    assert [len(batch.raws) for batch in found] == [3, 3, 3, 1]  # the second has records of both files
    assert sum(batch.size_bytes for batch in found) == sum(path.stat().st_size for path in paths)


def test_no_record_is_one_empty_batch() -> None:
    (batch,) = cut_batches([])
    assert (batch.index, batch.raws, batch.size_bytes) == (0, (), 0)


def test_a_part_has_keys_summaries_and_pieces(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_jsonl(path, [messages_row("good", "q", "r", "s", ""), messages_row("empty", "", "r"), {"id": "bad"}])
    (batch,) = cut_batches(find_sources((path,)))
    forget_pipeline()
    part = clean_batch(batch, data_options())
    assert (part.num_records, part.num_readable) == (3, 2)
    assert part.problem is not None and part.problem.startswith("in.jsonl:3: malformed (read): line 3")
    keys = dict(read_keys(io.BytesIO(part.keys).read))
    assert keys["good"] is not None and keys["empty"] is None
    lines = io.BytesIO(part.rows)
    good, piece, empty, bad = read_summary(next(lines)), json.loads(next(lines)), *map(read_summary, lines)
    assert (good.is_compared, [step for step, _ in good.repairs], good.end) == (True, ["empty"], None)
    assert good.pieces == [{"is_held_out": False, "num_messages": 2, "language": "und"}]
    assert piece["id"] == "good" and len(piece["messages"]) == 2
    assert empty.end is not None and empty.end[0] == "empty" and not empty.pieces and not empty.is_compared
    assert not bad.is_read and bad.end is not None and bad.end[1].rule == "malformed"
    assert clean_batch(batch, data_options()) == part
