"""The cleaning itself: every record through every step, every answer written down, every count checked.

    read -> html -> noise -> roles -> empty -> errors -> refusals -> blocked -> dedup -> split -> held out or not

`Cleaner` takes records one by one and hands out rows; it knows nothing of files. `output` writes them and `report`
draws the page.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vicuna.data.dedup import deduplication
from vicuna.data.filters import FILTERS
from vicuna.data.record import Malformed
from vicuna.data.split import CountTokens, rounds, splitting
from vicuna.data.step import Drop, Finding, Keep, Merge, Record, Split, Step

READ_RULES = {"malformed": "the record could not be read; the evidence says where and why"}
# Published ShareGPT collections are cut already: `QWJhYvA_0` and `QWJhYvA_17` are pieces of one conversation.
SHAREGPT_PIECE = re.compile(r"([A-Za-z0-9]{7})_\d+")
File = Literal["records", "held_out", "dropped", "repairs"]
Row = dict[str, Any]


@dataclass
class StepCount:
    """What a step did. Records: in = kept + dropped + merged."""

    name: str
    version: int
    records_in: int = 0
    kept: int = 0
    dropped: int = 0
    merged: int = 0

    def add(self, outcome: Keep | Drop | Merge | Split) -> None:
        """Count one answer."""
        self.records_in += 1
        self.kept += isinstance(outcome, Keep | Split)
        self.dropped += isinstance(outcome, Drop)
        self.merged += isinstance(outcome, Merge)


@dataclass
class Counts:
    """Everything that is counted. `rules`: how often each dropped or merged a record; `repairs`: changed one."""

    records_in: int = 0
    kept: int = 0
    dropped: int = 0
    merged: int = 0
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

    def check(self, steps: list[StepCount]) -> None:
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

    def to_dict(self) -> Row:
        """As the manifest has it."""
        return {**vars(self), "rules": dict(self.rules), "repairs": dict(self.repairs)}


class Cleaner:
    """The steps in order, and what they have done so far.

    Args:
        count_tokens: how long the trainer will find a conversation; None: nothing is counted or split.
        max_tokens: the longest record to let out; None: whole conversations.
        held_out_ratio: the part of the conversations, from 0 to 1, that is kept from training.
    """

    def __init__(
        self, count_tokens: CountTokens | None = None, max_tokens: int | None = None, held_out_ratio: float = 0.0
    ) -> None:
        self.steps: list[Step] = [*FILTERS, deduplication()]
        if count_tokens is not None:
            self.steps.append(splitting(count_tokens, max_tokens))
        self.held_out_ratio = held_out_ratio
        self.counts = Counts()
        self.step_counts = [StepCount("read", 1), *(StepCount(step.name, step.version) for step in self.steps)]
        self.rules = READ_RULES | {rule: text for step in self.steps for rule, text in step.rules.items()}
        self._ids: Counter[str] = Counter()

    def clean(self, item: Record | Malformed) -> Iterator[tuple[File, Row]]:
        """What becomes of one record: rows, each with the file it belongs in."""
        self.counts.records_in += 1
        if isinstance(item, Malformed):
            finding = Finding("malformed", item.reason)
            yield self._end("read", 0, item.id, item.source, Drop(finding))
            return
        self.step_counts[0].add(Keep(item))
        record = self._with_own_id(item)
        records: tuple[Record, ...] = (record,)
        num_repairs = 0
        for index, step in enumerate(self.steps, 1):
            is_splitting = step.name == "split"
            if is_splitting:
                self.counts.rounds_in += len(rounds(record))
            outcome = step.run(record)
            for repair in () if isinstance(outcome, Merge) else outcome.repairs:
                num_repairs += 1
                self.counts.repairs[repair.rule] += 1
                yield "repairs", _finding_row(step.name, record.id, record.source, repair)
            if isinstance(outcome, Drop | Merge):
                self.counts.rounds_dropped += len(rounds(record)) if is_splitting else 0
                yield self._end(step.name, index, record.id, record.source, outcome)
                return
            self.step_counts[index].add(outcome)
            records = outcome.records if isinstance(outcome, Split) else (outcome.record,)
            if is_splitting:
                self.counts.rounds_dropped += len(outcome.repairs)
                self.counts.rounds_out += sum(len(rounds(piece)) for piece in records)
            record = records[0]
        self.counts.kept += 1
        self.counts.repaired += num_repairs > 0
        if len(records) > 1:
            self.counts.split += 1
            self.counts.pieces += len(records)
        for piece in records:
            yield self._out(piece)

    def _with_own_id(self, record: Record) -> Record:
        """Ids come twice in real collections: the second gets a number, so that each names one record."""
        self._ids[record.id] += 1
        if self._ids[record.id] == 1:
            return record
        identifier = f"{record.id}~{self._ids[record.id]}"
        while identifier in self._ids:
            identifier += "~"
        self._ids[identifier] += 1
        return replace(record, id=identifier)

    def _end(self, step: str, index: int, identifier: str, source: str, outcome: Drop | Merge) -> tuple[File, Row]:
        self.step_counts[index].add(outcome)
        self.counts.dropped += isinstance(outcome, Drop)
        self.counts.merged += isinstance(outcome, Merge)
        self.counts.rules[outcome.finding.rule] += 1
        return "dropped", _finding_row(step, identifier, source, outcome.finding)

    def _out(self, record: Record) -> tuple[File, Row]:
        self.counts.messages += len(record.messages)
        self.counts.tokens += record.extra.get("num_tokens", 0)
        if is_held_out(record.original_id, self.held_out_ratio):
            self.counts.held_out += 1
            return "held_out", record.to_row()
        self.counts.records_out += 1
        return "records", record.to_row()


def is_held_out(original_id: str, ratio: float) -> bool:
    """Whether a conversation is kept from training: by the hash of its id, so it does not depend on its neighbours."""
    piece = SHAREGPT_PIECE.fullmatch(original_id)
    conversation = piece[1] if piece else original_id
    value = int.from_bytes(hashlib.sha256(b"held out:" + conversation.encode("utf-8")).digest()[:8], "big")
    return value < ratio * 2**64


def _finding_row(step: str, identifier: str, source: str, finding: Finding) -> Row:
    return {
        "id": identifier,
        "rule": finding.rule,
        "evidence": finding.evidence,
        "turn": finding.turn,
        "step": step,
        "source": source,
    }
