"""`vicuna data merge INPUT... --output FILE`: several cleanings as one file, each id once, nothing held out let in.

The same record under the same id is written once; another record under an id that is taken gets a number behind it.
Records that say the same under different ids are not looked for: cleaning the merged file finds them.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vicuna.data.look.collection import Item, check_output, files_of, read_good
from vicuna.data.pipeline import conversation_of
from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.jsonl import JsonObject, write_jsonl
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
    options = parse(MergeOptions, argv, prog="python -m vicuna.data merge", description="Make one file of several.")
    check_output(options.output)
    merger = Merger(_held_out(options.inputs))
    rows = merger.merge(read_good(files_of(options.inputs)))
    if (first := next(rows, None)) is None:
        raise VicunaError("no record is left to merge; name folders or files that hold some")
    num_out, counts = write_jsonl(options.output, itertools.chain([first], rows)), merger.counts
    if counts["held_out"]:
        log.warning(f"{counts['held_out']:,} records left out: another folder holds their conversation out of training")
    print(
        f"{num_out:,} records in {options.output} ({counts['repeated']:,} were there already, "
        f"{counts['renamed']:,} got another id because theirs was taken)"
    )
    return 0


def _held_out(inputs: tuple[Path, ...]) -> frozenset[str]:
    """The conversations that a cleaning among the inputs keeps from training."""
    folders = [path for path in inputs if path.is_dir()]
    paths = [path for path in files_of(folders, name="held_out") if path.name == "held_out.jsonl"]
    return frozenset(conversation_of(item.original_id) for item in read_good(paths))


@dataclass
class Merger:
    """Lets each record through once, under an id of its own. It keeps 16 bytes and the id of each.

    Attributes:
        held_out: conversations that are not let through.
    """

    held_out: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    _contents: dict[str, bytes] = field(default_factory=dict)  # by the id in the result

    def merge(self, items: Iterator[Item]) -> Iterator[JsonObject]:
        """The rows of the result."""
        for item in items:
            if conversation_of(item.original_id) in self.held_out:
                self.counts["held_out"] += 1
            elif (identifier := self._own_id(item)) is None:
                self.counts["repeated"] += 1
            elif identifier != item.conversation.id:
                self.counts["renamed"] += 1
                yield {**item.row, "id": identifier, "original_id": item.original_id}
            else:
                yield {**item.row, "id": identifier}

    def _own_id(self, item: Item) -> str | None:
        """An id that is free, or None when the very same record is there."""
        identifier, content, number = item.conversation.id, _content(item), 1
        while identifier in self._contents:
            if self._contents[identifier] == content:
                return None
            number += 1
            identifier = f"{item.conversation.id}~{number}"
        self._contents[identifier] = content
        return identifier


def _content(item: Item) -> bytes:
    """What is learned from a record, as a number of 128 bits."""
    texts = [[message.role, message.content] for message in item.conversation.messages]
    text = json.dumps([texts, item.row.get("context_messages", 0)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
