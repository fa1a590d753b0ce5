"""The types of a cleaning step: a pure function from a `Record` to an `Outcome` (`Keep`, `Drop` or `Split`).

Records are made in `read`, steps in `steps` and `privacy`; `pipeline` runs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vicuna.conversation import Conversation, Message, to_openai
from vicuna.io.jsonl import JsonObject

Shape = Literal["sharegpt", "messages", "alpaca"]
EVIDENCE_CHARACTERS = 200


@dataclass(frozen=True)
class Record:
    """A conversation, as it goes from step to step.

    Attributes:
        source: the file it came from and its number there, counted from 1: `sharegpt.json:12`. A record that names
            its own source keeps it in the output.
        original_id: the id it had at first. Pieces of one conversation share it.
        shape: the shape it was read from. Only ShareGPT answers may be a page's HTML.
        turns: for each message, the place of its turn in the file, counted from 0.
        extra: the record's other keys, which are written as they came.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    original_id: str
    shape: Shape
    turns: tuple[int, ...]
    extra: JsonObject = field(default_factory=dict)

    def with_messages(self, messages: tuple[Message, ...]) -> "Record":
        """The same record with other texts in the same turns."""
        return replace(self, messages=messages)

    def select(self, indices: list[int] | range) -> "Record":
        """The same record with only these messages."""
        return replace(
            self,
            messages=tuple(self.messages[index] for index in indices),
            turns=tuple(self.turns[index] for index in indices),
        )

    def to_row(self) -> JsonObject:
        """The training record as it is written."""
        own = {"source": self.source} | ({"original_id": self.original_id} if self.original_id != self.id else {})
        return to_openai(Conversation(self.id, self.messages, own | self.extra))


@dataclass(frozen=True)
class Finding:
    """Why something was changed or dropped.

    Attributes:
        rule: one of the step's rules.
        evidence: the words, number or id that decided.
        turn: the place in the file's record, counted from 0; None where the whole record is meant.
    """

    rule: str
    evidence: str
    turn: int | None = None


@dataclass(frozen=True)
class Keep:
    """The record goes on; `repairs` say what was changed in it."""

    record: Record
    repairs: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Drop:
    """The record is dropped for the finding; `repairs` were made to it before."""

    finding: Finding
    repairs: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Split:
    """The record goes on in pieces."""

    records: tuple[Record, ...]
    repairs: tuple[Finding, ...] = ()


Outcome = Keep | Drop | Split


@dataclass(frozen=True)
class Step:
    """A step and what it may find.

    Attributes:
        version: raised when the step's results change; stands in the manifest.
        rules: each rule's name, and what it means to a reader of the report.
        prepare: called with many records before `run` is called with each, for a step that works faster on many at
            once. It changes no outcome.
    """

    name: str
    version: int
    rules: Mapping[str, str]
    run: Callable[[Record], Outcome]
    prepare: Callable[[Sequence[Record]], None] = lambda _: None


def excerpt(text: str) -> str:
    """The beginning of a text, for a finding's evidence."""
    return text if len(text) <= EVIDENCE_CHARACTERS else text[:EVIDENCE_CHARACTERS] + "…"
