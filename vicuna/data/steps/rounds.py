"""Conversations cut before their first bad round. `answers` and `quality` say which message is bad.

The rounds before it are good training data and stay; what comes after it may refer to it. If no answer is left, the
record is dropped.
"""

from collections.abc import Callable, Iterator

from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record

FindBad = Callable[[Record], Iterator[tuple[int, Finding]]]  # index and finding of each bad message, in order


def cut_rounds(find_bad: FindBad) -> Callable[[Record], Outcome]:
    """A step's function that keeps the rounds before the first message that `find_bad` finds."""

    def run(record: Record) -> Outcome:
        index, finding = next(find_bad(record), (None, None))
        if index is None or finding is None:
            return Keep(record)
        start = max((at for at in range(index + 1) if record.messages[at].role == "user"), default=0)
        if not any(message.role == "assistant" for message in record.messages[:start]):
            return Drop(finding)
        return Keep(record.select(range(start)), (finding,))

    return run


def answers_of(record: Record) -> Iterator[tuple[int, int, str]]:
    """Index, turn and text of each of the assistant's messages."""
    for index, (message, turn) in enumerate(zip(record.messages, record.turns, strict=True)):
        if message.role == "assistant":
            yield index, turn, message.content
