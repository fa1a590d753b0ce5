"""Batches of raw records, and the function that takes one through all steps.

`cut_batches` cuts the sources into batches that depend on nothing but their bytes. `clean_batch` is pure: the same
batch and options give the same part, byte for byte, in any process on any machine. `engines` runs it, `work` stores
the parts, `reduce` combines them.

A part consists of
- the keys: for each record that could be read, two lengths, its id and its `Keys`, in bytes;
- the rows: for each record its `RecordSummary` as a line of JSON, then each of its pieces as it will be written.
"""

import functools
import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vicuna.data.options import DataOptions
from vicuna.data.pipeline import SET_ASIDE_RULES, Pipeline, Trace, clean_records, is_held_out, make_pipeline
from vicuna.data.read.record import read_record
from vicuna.data.read.sources import RawRecord, Source, raw_records
from vicuna.data.step_kinds import Finding
from vicuna.data.steps.dedup import Keys
from vicuna.io.jsonl import JsonObject, format_line

BATCH_BYTES = 2 << 20  # a second or two of work, the most that a kill can cost each worker
BATCH_RECORDS = 4096
REPORTED_KEYS = ("num_tokens", "language", "context_messages")  # keys of a piece that the report asks for


@dataclass(frozen=True)
class Batch:
    """Consecutive raw records. `size_bytes`: how much of the files, as they lie on the disk, they take."""

    index: int
    raws: tuple[RawRecord, ...]
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """What the steps made of a batch.

    Attributes:
        problem: place and reason of the first record that was set aside, for `--strict`; None if there is none.
        keys, rows: as the head of this file says.
    """

    num_records: int
    num_readable: int
    problem: str | None
    keys: bytes
    rows: bytes

    def sha256(self) -> str:
        """The hash of keys and rows, in hex digits."""
        digest = hashlib.sha256(self.keys)
        digest.update(self.rows)
        return digest.hexdigest()


@dataclass(frozen=True)
class RecordSummary:
    """What the steps made of a record, without its texts: a `Trace` as it stands in a part's rows.

    Attributes:
        is_compared: whether the record has keys for `dedup`.
        pieces: of each piece that follows in the rows: `is_held_out`, `num_messages`, and `REPORTED_KEYS`.
    """

    id: str
    source: str
    is_read: bool
    repairs: list[tuple[str, Finding]]
    end: tuple[str, Finding] | None
    is_compared: bool
    repairs_after: list[tuple[str, Finding]]
    end_after: tuple[str, Finding] | None
    pieces: list[JsonObject]
    rounds: tuple[int, int, int]


def cut_batches(sources: Sequence[Source]) -> Iterator[Batch]:
    """All records of the sources in order, in batches of about `BATCH_BYTES`; small files share one."""
    index = 0
    raws: list[RawRecord] = []
    size = done = taken = 0
    for source in sources:
        position = 0

        def progress(place: int, before: int = done) -> None:
            nonlocal position
            position = before + place

        for raw in raw_records(source.path, progress):
            raws.append(raw)
            size += len(raw.data)
            if size >= BATCH_BYTES or len(raws) >= BATCH_RECORDS:
                yield Batch(index, tuple(raws), position - taken)
                index, raws, size, taken = index + 1, [], 0, position
        done += source.size_bytes
        position = done
    if raws or not index:
        yield Batch(index, tuple(raws), done - taken)


@functools.lru_cache(maxsize=1)
def _pipeline(options: DataOptions) -> Pipeline:
    return make_pipeline(options)


def forget_pipeline() -> None:
    """Make the next batch load its pipeline anew: the files that the options name may have changed since."""
    _pipeline.cache_clear()


def clean_batch(batch: Batch, options: DataOptions) -> Part:
    """Take every record of the batch through every step."""
    pipeline = _pipeline(options)
    with _no_cycle_collection():
        return _part(batch, pipeline)


@contextmanager
def _no_cycle_collection() -> Iterator[None]:
    """Turn Python's cycle collector off: the steps make no cycles, and it takes 3% of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _part(batch: Batch, pipeline: Pipeline) -> Part:
    keys, rows = bytearray(), bytearray()
    problem: str | None = None
    num_readable = 0
    for trace in clean_records([(read_record(raw), raw.place) for raw in batch.raws], pipeline):
        for end in (trace.end, trace.end_after):
            if problem is None and end is not None and end[1].rule in SET_ASIDE_RULES:
                problem = f"{trace.source}: {end[1].rule} ({end[0]}): {end[1].evidence}"
        num_readable += trace.is_read
        if trace.is_read:
            keys += _key_entry(trace)
        rows += _summary_line(trace, pipeline)
        for piece in trace.pieces:
            rows += format_line(piece.to_row()).encode("utf-8")
    return Part(len(batch.raws), num_readable, problem, bytes(keys), bytes(rows))


def _key_entry(trace: Trace) -> bytes:
    name = trace.id.encode("utf-8")
    data = trace.keys.to_bytes() if trace.keys is not None else b""
    return len(name).to_bytes(4) + len(data).to_bytes(4) + name + data


def read_keys(read: Callable[[int], bytes]) -> Iterator[tuple[str, Keys | None]]:
    """Id and keys of each record in a part that could be read; None for the keys of one that is not compared.

    Args:
        read: returns so many of the part's key bytes; b"" at their end.
    """
    while lengths := read(8):
        name = read(int.from_bytes(lengths[:4])).decode("utf-8")
        data = read(int.from_bytes(lengths[4:]))
        yield name, Keys.from_bytes(data) if data else None


def _summary_line(trace: Trace, pipeline: Pipeline) -> bytes:
    pieces = [
        {
            "is_held_out": is_held_out(piece.original_id, pipeline.held_out_ratio),
            "num_messages": len(piece.messages),
            **{key: piece.extra[key] for key in REPORTED_KEYS if key in piece.extra},
        }
        for piece in trace.pieces
    ]
    summary = [
        trace.id,
        trace.source,
        trace.is_read,
        [_finding_to_json(repair) for repair in trace.repairs],
        trace.end and _finding_to_json(trace.end),
        trace.keys is not None,
        [_finding_to_json(repair) for repair in trace.repairs_after],
        trace.end_after and _finding_to_json(trace.end_after),
        pieces,
        trace.rounds,
    ]
    return json.dumps(summary).encode("ascii") + b"\n"


def read_summary(line: bytes) -> RecordSummary:
    """The reverse of `_summary_line`."""
    name, source, is_read, repairs, end, is_compared, repairs_after, end_after, pieces, rounds = json.loads(line)
    return RecordSummary(
        name,
        source,
        is_read,
        [_finding_from_json(repair) for repair in repairs],
        end and _finding_from_json(end),
        is_compared,
        [_finding_from_json(repair) for repair in repairs_after],
        end_after and _finding_from_json(end_after),
        pieces,
        rounds,
    )


def _finding_to_json(found: tuple[str, Finding]) -> list[Any]:
    step, finding = found
    return [step, finding.rule, finding.evidence, finding.turn]


def _finding_from_json(plain: list[Any]) -> tuple[str, Finding]:
    step, rule, evidence, turn = plain
    return step, Finding(rule, evidence, turn)
