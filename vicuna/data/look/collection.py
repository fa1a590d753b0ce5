"""Records to look at, whatever wrote them: the rows of a cleaning's folder, or of any file that can be cleaned.

For `sample`, `merge`, `stats` and `show`. Rows are given as they stand, so that what passes through is not changed.
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
class Item:
    """A record as it stands in its file, and as we read it.

    Attributes:
        place: its file and where in it, for a person.
    """

    row: JsonObject
    conversation: Conversation
    place: str

    @property
    def original_id(self) -> str:
        """The id of the conversation that this is, or is a piece of."""
        original = self.row.get("original_id")
        return original if isinstance(original, str) else self.conversation.id


@dataclass(frozen=True)
class Unreadable:
    """Something that is no record, and why."""

    place: str
    reason: str


def files_of(inputs: Sequence[Path], *, name: str = "records") -> list[Path]:
    """The files that the inputs mean, in the order given; of a cleaning's folder, the one with the training records.

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


def read_all(paths: Sequence[Path]) -> Iterator[Item | Unreadable]:
    """What is in the files, in order."""
    for path in paths:
        for raw in raw_records(path):
            place = f"{path}, {raw.place}"
            try:
                if raw.problem is not None:
                    raise ValueError(raw.problem)
                row = json.loads(raw.data)
                conversation = from_record(row)
            except (RecordError, ValueError, RecursionError) as error:
                yield Unreadable(place, str(error))
                continue
            if not conversation.id:
                conversation = Conversation(
                    f"{stem(path.name)}-{raw.number:06d}", conversation.messages, conversation.extra
                )
            yield Item(row, conversation, place)


def read_good(paths: Sequence[Path]) -> Iterator[Item]:
    """What is in the files, in order.

    Raises:
        VicunaError: something there is no record.
    """
    for item in read_all(paths):
        if isinstance(item, Unreadable):
            raise VicunaError(f"{item.place}: {item.reason}; clean the file first (python -m vicuna.data)")
        yield item


def check_output(output: Path) -> None:
    """See before the work that its result will not replace anything.

    Raises:
        VicunaError: there is a file or folder of that name.
    """
    if output.exists() or output.is_symlink():
        raise VicunaError(f"--output {output} is there already; choose another name or delete it first")
