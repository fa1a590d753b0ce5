"""All parts to one result, in one process and in order; only the keys of all records are in memory at once.

The parts are read three times: their ids, to see which come twice; their keys, to decide what is merged (`dedup`);
their rows, to write them. The result does not depend on which worker made which part, or in which order.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, Literal, Protocol

import numpy as np

from vicuna.data.pipeline import DEDUP, SET_ASIDE_RULES, Pipeline
from vicuna.data.run.batches import RecordSummary, read_summary
from vicuna.data.run.work import Work
from vicuna.data.step_kinds import Finding
from vicuna.data.steps import dedup
from vicuna.data.steps.dedup import Keys
from vicuna.io.jsonl import JsonObject, format_line

RowFile = Literal["records", "held_out", "dropped", "repairs"]


class RowObserver(Protocol):
    """Gets everything that is written, for the report."""

    def add_finding(self, row: JsonObject) -> None:
        """Take in a row of dropped.jsonl or repairs.jsonl."""

    def add_record(self, facts: Mapping[str, Any]) -> None:
        """Take in a record that was written: `num_messages`, and `num_tokens` and `language` where they are known."""


@dataclass
class StepCount:
    """What a step did. Records: in = kept + dropped + merged."""

    name: str
    version: int
    records_in: int = 0
    kept: int = 0
    dropped: int = 0
    merged: int = 0


@dataclass
class Counts:
    """All counts of a result.

    Attributes:
        set_aside: of the dropped records, those that could not be read, or that a step failed on.
        rules: how often each rule dropped or merged a record.
        repairs: how often each rule changed a turn.
    """

    records_in: int = 0
    kept: int = 0
    dropped: int = 0
    merged: int = 0
    set_aside: int = 0
    repaired: int = 0
    split: int = 0
    pieces: int = 0
    records_out: int = 0
    held_out: int = 0
    rounds_in: int = 0
    rounds_out: int = 0
    rounds_dropped: int = 0
    messages: int = 0
    tokens: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)

    def check(self, steps: Sequence[StepCount]) -> None:
        """Assert the sums that must hold; if one does not, the program is wrong and no result may be written."""
        assert self.records_in == self.kept + self.dropped + self.merged
        assert self.dropped + self.merged == self.rules.total()
        assert self.records_out + self.held_out == self.kept - self.split + self.pieces
        assert self.rounds_in == self.rounds_out + self.rounds_dropped
        arriving = self.records_in
        for step in steps:
            assert step.records_in == arriving == step.kept + step.dropped + step.merged, step
            arriving = step.kept
        assert arriving == self.kept

    def to_dict(self) -> JsonObject:
        """As the manifest has it."""
        return {**vars(self), "rules": dict(self.rules), "repairs": dict(self.repairs)}


class UniqueIds:
    """Numbers ids that come several times, as they do in real collections, so that each id names one record.

    Args:
        ids: those of all records, in order. 8 bytes of each are kept.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        hashes = np.frombuffer(array("Q", map(_hash, ids)), np.uint64)
        self._known, counts = np.unique(hashes, return_counts=True)
        self._seen: Counter[str] = Counter()
        self._repeated = frozenset(self._known[counts > 1].tolist())
        self._made: set[str] = set()

    def restart(self) -> None:
        """Begin again with the first record."""
        self._seen.clear()
        self._made.clear()

    def assign(self, identifier: str) -> str:
        """The next record's unique id, from the id that it came with."""
        if _hash(identifier) not in self._repeated:
            return identifier
        self._seen[identifier] += 1
        if self._seen[identifier] == 1:
            return identifier
        made = f"{identifier}~{self._seen[identifier]}"
        while made in self._made or self._is_known(made):
            made += "~"
        self._made.add(made)
        return made

    def _is_known(self, identifier: str) -> bool:
        value = np.uint64(_hash(identifier))
        place = int(np.searchsorted(self._known, value))
        return place < len(self._known) and bool(self._known[place] == value)


def _hash(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode("utf-8"), digest_size=8).digest())


class Reducer:
    """Decides what is merged, then writes.

    Args:
        num_parts: `work` holds the parts 0 to `num_parts` - 1.
        threshold: the similarity from which two records are near duplicates; 0: only equal ones are merged.
    """

    def __init__(self, work: Work, num_parts: int, pipeline: Pipeline, threshold: float = 0.0) -> None:
        self._work, self._parts, self._pipeline = work, range(num_parts), pipeline
        self._unique_ids = UniqueIds(identifier for part in self._parts for identifier, _ in work.keys(part))
        self._merged = dedup.find_duplicates(self._all_keys(), threshold) if pipeline.has_dedup else {}
        self.counts = Counts()
        self._step_counts = {name: StepCount(name, version) for name, version in pipeline.versions()}

    @property
    def steps(self) -> list[StepCount]:
        """The counts of each step, in order."""
        arriving = self.counts.records_in
        for step in self._step_counts.values():
            step.records_in, step.kept = arriving, arriving - step.dropped - step.merged
            arriving = step.kept
        return list(self._step_counts.values())

    def write(self, files: Mapping[RowFile, IO[bytes]], observer: RowObserver) -> Iterator[None]:
        """Write all rows; yields once for each record."""
        self._unique_ids.restart()
        number = 0  # among those that are compared
        for part in self._parts:
            with self._work.rows(part) as rows:
                for line in rows:
                    summary = read_summary(line)
                    pieces = [next(rows) for _ in summary.pieces]
                    merged = self._merged.get(number) if summary.is_compared else None
                    number += summary.is_compared
                    self._write_record(summary, pieces, merged, files, observer)
                    yield

    def _all_keys(self) -> Iterator[Keys]:
        for part in self._parts:
            for identifier, keys in self._work.keys(part):
                name = self._unique_ids.assign(identifier)
                if keys is not None:
                    yield replace(keys, id=name)

    def _write_record(
        self,
        summary: RecordSummary,
        pieces: list[bytes],
        merged: Finding | None,
        files: Mapping[RowFile, IO[bytes]],
        observer: RowObserver,
    ) -> None:
        counts = self.counts
        counts.records_in += 1
        own_id = self._unique_ids.assign(summary.id) if summary.is_read else summary.id

        def write_finding(file: RowFile, step: str, finding: Finding) -> None:
            row = _finding_row(step, own_id, summary.source, finding)
            files[file].write(format_line(row).encode("utf-8"))
            observer.add_finding(row)

        repairs = summary.repairs + (summary.repairs_after if merged is None else [])
        for step, finding in repairs:
            counts.repairs[finding.rule] += 1
            write_finding("repairs", step, finding)
        if merged is None:
            rounds_in, rounds_out, rounds_dropped = summary.rounds
            counts.rounds_in += rounds_in
            counts.rounds_out += rounds_out
            counts.rounds_dropped += rounds_dropped
        end = (DEDUP, merged) if merged is not None else summary.end or summary.end_after
        if end is not None:
            step, finding = end
            self._step_counts[step].dropped += merged is None
            self._step_counts[step].merged += merged is not None
            counts.dropped += merged is None
            counts.merged += merged is not None
            counts.set_aside += finding.rule in SET_ASIDE_RULES
            counts.rules[finding.rule] += 1
            write_finding("dropped", step, finding)
            return
        counts.kept += 1
        counts.repaired += bool(repairs)
        if len(pieces) > 1:
            counts.split += 1
            counts.pieces += len(pieces)
        for facts, line in zip(summary.pieces, pieces, strict=True):
            counts.messages += facts["num_messages"]
            counts.tokens += facts.get("num_tokens", 0)
            counts.held_out += facts["is_held_out"]
            counts.records_out += not facts["is_held_out"]
            is_same = own_id == summary.id
            file: RowFile = "held_out" if facts["is_held_out"] else "records"
            files[file].write(line if is_same else _renamed(line, summary.id, own_id))
            observer.add_record(facts)


def _renamed(line: bytes, old: str, new: str) -> bytes:
    """The row under another id: a piece keeps its number, and `original_id` becomes the id that it had."""
    row: JsonObject = json.loads(line)
    renamed: JsonObject = {}
    for key, value in row.items():
        renamed[key] = new + value.removeprefix(old) if key == "id" else value
        if key == "source" and "original_id" not in row:
            renamed["original_id"] = old
    return format_line(renamed).encode("utf-8")


def _finding_row(step: str, identifier: str, source: str, finding: Finding) -> JsonObject:
    return {
        "id": identifier,
        "rule": finding.rule,
        "evidence": finding.evidence,
        "turn": finding.turn,
        "step": step,
        "source": source,
    }
