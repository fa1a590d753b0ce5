"""All parts to one result, in one process and in order, with memory for nothing but the keys.

Three ways through the parts: over the ids, to see which come twice; over the keys, to decide what is merged (`dedup`);
over the rows, to write them. Whatever the workers did and in whatever order, this is the same. `output` comes next.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, Protocol

import numpy as np

from vicuna.data.pipeline import ASIDE, DEDUP, File, Plan
from vicuna.data.run.batches import Story, read_story
from vicuna.data.run.work import Work
from vicuna.data.step_kinds import Finding
from vicuna.data.steps import dedup
from vicuna.data.steps.dedup import Keys
from vicuna.io.jsonl import JsonObject, format_line


class Watcher(Protocol):
    """Who sees what is written, for the report."""

    def add_finding(self, row: JsonObject) -> None:
        """A row of dropped.jsonl or repairs.jsonl."""

    def add_record(self, facts: Mapping[str, Any]) -> None:
        """A record that came out: `num_messages`, and `num_tokens` and `language` where they are known."""


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
    """Everything that is counted. `rules`: how often each dropped or merged a record; `repairs`: changed one.

    `set_aside` are those of the dropped that could not be read, or that a step failed on.
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
        """The sums that must hold; if one does not, the program is wrong and no result may be written."""
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


class Names:
    """Ids come twice in real collections: the second gets a number, so that each names one record.

    Args:
        ids: those of all records. Kept are 8 bytes of each.
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

    def next(self, identifier: str) -> str:
        """The next record's own id."""
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

    def __init__(self, work: Work, num_parts: int, plan: Plan, threshold: float = 0.0) -> None:
        self._work, self._parts, self._plan = work, range(num_parts), plan
        self._names = Names(identifier for part in self._parts for identifier, _ in work.keys(part))
        self._merged = dedup.decide(self._all_keys(), threshold) if plan.merges else {}
        self.counts = Counts()
        self._ended = {name: StepCount(name, version) for name, version in plan.versions()}

    @property
    def steps(self) -> list[StepCount]:
        """What each step did."""
        arriving = self.counts.records_in
        for step in self._ended.values():
            step.records_in, step.kept = arriving, arriving - step.dropped - step.merged
            arriving = step.kept
        return list(self._ended.values())

    def write(self, files: Mapping[File, IO[bytes]], watcher: Watcher) -> Iterator[None]:
        """Write all rows; each step of the iterator is a record done."""
        self._names.restart()
        number = 0  # among those that are compared
        for part in self._parts:
            with self._work.rows(part) as rows:
                for line in rows:
                    story = read_story(line)
                    pieces = [next(rows) for _ in story.pieces]
                    merged = self._merged.get(number) if story.is_compared else None
                    number += story.is_compared
                    self._record(story, pieces, merged, files, watcher)
                    yield

    def _all_keys(self) -> Iterator[Keys]:
        for part in self._parts:
            for identifier, keys in self._work.keys(part):
                name = self._names.next(identifier)
                if keys is not None:
                    yield replace(keys, id=name)

    def _record(
        self,
        story: Story,
        pieces: list[bytes],
        merged: Finding | None,
        files: Mapping[File, IO[bytes]],
        watcher: Watcher,
    ) -> None:
        counts = self.counts
        counts.records_in += 1
        name = self._names.next(story.id) if story.is_read else story.id

        def tell(file: File, step: str, finding: Finding) -> None:
            row = _finding_row(step, name, story.source, finding)
            files[file].write(format_line(row).encode("utf-8"))
            watcher.add_finding(row)

        repairs = story.repairs + (story.repairs_after if merged is None else [])
        for step, finding in repairs:
            counts.repairs[finding.rule] += 1
            tell("repairs", step, finding)
        if merged is None:
            rounds_in, rounds_out, rounds_dropped = story.rounds
            counts.rounds_in += rounds_in
            counts.rounds_out += rounds_out
            counts.rounds_dropped += rounds_dropped
        end = (DEDUP, merged) if merged is not None else story.end or story.end_after
        if end is not None:
            step, finding = end
            self._ended[step].dropped += merged is None
            self._ended[step].merged += merged is not None
            counts.dropped += merged is None
            counts.merged += merged is not None
            counts.set_aside += finding.rule in ASIDE
            counts.rules[finding.rule] += 1
            tell("dropped", step, finding)
            return
        counts.kept += 1
        counts.repaired += bool(repairs)
        if len(pieces) > 1:
            counts.split += 1
            counts.pieces += len(pieces)
        for facts, line in zip(story.pieces, pieces, strict=True):
            counts.messages += facts["num_messages"]
            counts.tokens += facts.get("num_tokens", 0)
            counts.held_out += facts["is_held_out"]
            counts.records_out += not facts["is_held_out"]
            is_same = name == story.id
            file: File = "held_out" if facts["is_held_out"] else "records"
            files[file].write(line if is_same else _renamed(line, story.id, name))
            watcher.add_record(facts)


def _renamed(line: bytes, old: str, new: str) -> bytes:
    """The row under another id. A piece keeps its number, and the row the id it had at first."""
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
