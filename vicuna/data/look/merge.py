"""`vicuna data merge INPUT... --output FILE`: the records of several cleanings as one file, without held-out ones.

Equal records with the same id are written once; another record with an id that is taken gets a number after it. Equal
records with different ids are not searched; cleaning the merged file finds them.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vicuna.data.look.collection import StoredRecord, check_output, files_of, read_valid
from vicuna.data.pipeline import conversation_of
from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.jsonl import JsonObject, write_jsonl
from vicuna.io.terminal import write
from vicuna.options import option, parse


@dataclass(frozen=True)
class MergeOptions:
    """`vicuna data merge` options."""

    inputs: tuple[Path, ...] = option(
        help="folders of cleanings, or files of conversations", positional=True, metavar="INPUT"
    )
    output: Path = option(help="file for all records (JSON lines); must not be there yet")


def main(argv: list[str]) -> int:
    """Write the merged file, and say what became of the records."""
    options = parse(MergeOptions, argv, prog="vicuna data merge", description="Make one file of several.")
    check_output(options.output)
    merger = Merger(_held_out(options.inputs))
    rows = merger.merge(read_valid(files_of(options.inputs)))
    if (first := next(rows, None)) is None:
        raise VicunaError("no record is left to merge; name folders or files that hold some")
    num_out, counts = write_jsonl(options.output, itertools.chain([first], rows)), merger.counts
    if counts["held_out"]:
        log.warning(f"{counts['held_out']:,} records left out: another folder holds their conversation out of training")
    write(
        f"{num_out:,} records in {options.output} ({counts['repeated']:,} were there already, "
        f"{counts['renamed']:,} got another id because theirs was taken)"
    )
    return 0


def _held_out(inputs: tuple[Path, ...]) -> frozenset[str]:
    """The conversations that a cleaning among the inputs holds out."""
    folders = [path for path in inputs if path.is_dir()]
    paths = [path for path in files_of(folders, name="held_out") if path.name == "held_out.jsonl"]
    return frozenset(conversation_of(item.original_id) for item in read_valid(paths))


@dataclass
class Merger:
    """Merges records: each once, with a unique id. It keeps 16 bytes and the id of each.

    Attributes:
        held_out: conversations that are left out.
    """

    held_out: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    _contents: dict[str, bytes] = field(default_factory=dict)  # by the id in the result

    def merge(self, items: Iterator[StoredRecord]) -> Iterator[JsonObject]:
        """The rows of the result."""
        for item in items:
            if conversation_of(item.original_id) in self.held_out:
                self.counts["held_out"] += 1
            elif (identifier := self._unique_id(item)) is None:
                self.counts["repeated"] += 1
            elif identifier != item.conversation.id:
                self.counts["renamed"] += 1
                yield {**item.row, "id": identifier, "original_id": item.original_id}
            else:
                yield {**item.row, "id": identifier}

    def _unique_id(self, item: StoredRecord) -> str | None:
        """An id that is not taken, or None if an equal record has it."""
        identifier, content, number = item.conversation.id, _content(item), 1
        while identifier in self._contents:
            if self._contents[identifier] == content:
                return None
            number += 1
            identifier = f"{item.conversation.id}~{number}"
        self._contents[identifier] = content
        return identifier


def _content(item: StoredRecord) -> bytes:
    """A hash of 128 bits of a record's messages and its `context_messages`."""
    texts = [[message.role, message.content] for message in item.conversation.messages]
    text = json.dumps([texts, item.row.get("context_messages", 0)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
