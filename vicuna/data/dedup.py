"""The same conversation twice: the first one stays, the others are merged into it.

Same means the same roles and the same texts after cleaning, whatever the ids say and however a page drew them. `split`
comes next, so whole conversations are compared, not pieces.
"""

import hashlib

from vicuna.data.step import Finding, Keep, Merge, Outcome, Record, Step


def deduplication() -> Step:
    """The step, with a memory of its own: 32 bytes and an id for each conversation seen."""
    first_id: dict[bytes, str] = {}

    def run(record: Record) -> Outcome:
        kept = first_id.setdefault(content_hash(record), record.id)
        return Keep(record) if kept == record.id else Merge(Finding("duplicate", kept))

    return Step("dedup", 1, {"duplicate": "the same roles and texts as an earlier record, whose id is given"}, run)


def content_hash(record: Record) -> bytes:
    """SHA-256 of the roles and texts; lengths keep one message from running into the next."""
    digest = hashlib.sha256()
    for message in record.messages:
        text = message.content.strip().encode("utf-8")
        digest.update(f"{message.role} {len(text)} ".encode() + text)
    return digest.digest()
