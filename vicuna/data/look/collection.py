"""Reads records from a cleaning's folder or from any file that can be cleaned, with their rows unchanged.

For `sample`, `merge`, `stats` and `show`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vicuna.conversation import Conversation, RecordError, from_record
from vicuna.data.read.sources import find_sources, raw_records, stem
from vicuna.data.run.output import MANIFEST, read_manifest
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject


@dataclass(frozen=True)
class StoredRecord:
    """A record in a file.

    Attributes:
        row: its JSON, unchanged.
        conversation: the conversation read from it.
        place: its file and where in it, for a person.
    """

    row: JsonObject
    conversation: Conversation
    place: str

    @property
    def original_id(self) -> str:
        """The id of the conversation that this record is, or is a piece of."""
        original = self.row.get("original_id")
        return original if isinstance(original, str) else self.conversation.id


@dataclass(frozen=True)
class UnreadableRecord:
    """Something in a file that is not a record, and why."""

    place: str
    reason: str


def files_of(inputs: Sequence[Path], *, name: str = "records") -> list[Path]:
    """The files that the inputs name, in the order given; of a cleaning's folder, the one with the training records.

    Args:
        name: which file of such a folder.

    Raises:
        VicunaError: an input is missing, or holds nothing to read.
    """
    paths: list[Path] = []
    for given in inputs:
        if (given / MANIFEST).is_file():
            path = given / f"{name}.jsonl"
            if read_manifest(given)["outputs"].get(path.name, {}).get("rows"):  # an empty one has nothing to read
                paths.append(path)
        else:
            paths += [source.path for source in find_sources((given,))]
    return paths


def read_all(paths: Sequence[Path]) -> Iterator[StoredRecord | UnreadableRecord]:
    """All records of the files, in order."""
    for path in paths:
        for raw in raw_records(path):
            place = f"{path}, {raw.place}"
            try:
                if raw.problem is not None:
                    raise ValueError(raw.problem)
                row = json.loads(raw.data)
                conversation = from_record(row)
            except (RecordError, ValueError, RecursionError) as error:
                yield UnreadableRecord(place, str(error))
                continue
            if not conversation.id:
                conversation = Conversation(
                    f"{stem(path.name)}-{raw.number:06d}", conversation.messages, conversation.extra
                )
            yield StoredRecord(row, conversation, place)


def read_valid(paths: Sequence[Path]) -> Iterator[StoredRecord]:
    """All records of the files, in order.

    Raises:
        VicunaError: something in a file is not a record.
    """
    for item in read_all(paths):
        if isinstance(item, UnreadableRecord):
            raise VicunaError(f"{item.place}: {item.reason}; clean the file first (vicuna data)")
        yield item


def check_output(output: Path) -> None:
    """Check that a command's output will not replace anything.

    Raises:
        VicunaError: there is a file or folder of that name.
    """
    if output.exists() or output.is_symlink():
        raise VicunaError(f"--output {output} is there already; choose another name or delete it first")
