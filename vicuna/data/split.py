"""Conversations that are too long for the model, cut between rounds; and the length of each in tokens.

A round is a question with all that follows up to the next question. Pieces are filled from the front, each with the
system text of the whole, and measured as the trainer will measure them: the training template, its tokenizer, marks
and all. Every round comes out in exactly one piece, unless it is too long by itself: then it is left out, and said so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vicuna.conversation import Message, Template, TemplateError, encode
from vicuna.data.step import Drop, Finding, Keep, Outcome, Record, Split, Step

CountTokens = Callable[[Sequence[Message]], int]
RULES = {
    "too_long": "every round alone is longer than the token budget",
    "round_too_long": "one round alone is longer than the token budget; left out, and a new piece begins after it",
}


def token_counter(template: Template, tokenizer: Any) -> CountTokens:
    """How many tokens the trainer will see."""
    return lambda messages: len(encode(messages, template, tokenizer).input_ids)


def splitting(count_tokens: CountTokens, max_tokens: int | None) -> Step:
    """The step. Without `max_tokens` it only counts."""

    def run(record: Record) -> Outcome:
        try:
            size = count_tokens(record.messages)
            if max_tokens is None or size <= max_tokens:
                return Keep(_counted(record, size))
            return _split(record, count_tokens, max_tokens)
        except TemplateError as error:
            raise TemplateError(f"record {record.id} ({record.source}): {error}") from None

    return Step("split", 1, RULES, run)


def rounds(record: Record) -> list[list[int]]:
    """The message indices of each round; the system text at the start is in none."""
    found: list[list[int]] = []
    for index, message in enumerate(record.messages):
        if message.role == "user":
            found.append([])
        if found:
            found[-1].append(index)
    return found


def _counted(record: Record, num_tokens: int) -> Record:
    return replace(record, extra=record.extra | {"num_tokens": num_tokens})


def _split(record: Record, count_tokens: CountTokens, max_tokens: int) -> Outcome:
    system = [index for index, message in enumerate(record.messages) if message.role == "system"]
    pieces: list[tuple[list[int], int]] = []
    repairs: list[Finding] = []
    is_open = False  # whether the last piece may take the next round
    for indices in rounds(record):
        if is_open:
            longer = pieces[-1][0] + indices
            if (size := count_tokens(record.select(longer).messages)) <= max_tokens:
                pieces[-1] = (longer, size)
                continue
        alone = system + indices
        size = count_tokens(record.select(alone).messages)
        is_open = size <= max_tokens
        if is_open:
            pieces.append((alone, size))
        else:
            repairs.append(Finding("round_too_long", f"{size} tokens", record.turns[indices[0]]))
    if not pieces:
        return Drop(replace(repairs[0], rule="too_long"))
    if len(pieces) == 1:
        (indices, size) = pieces[0]
        return Keep(_counted(record.select(indices), size), tuple(repairs))
    return Split(
        tuple(
            replace(_counted(record.select(indices), size), id=f"{record.id}#{number}")
            for number, (indices, size) in enumerate(pieces, 1)
        ),
        tuple(repairs),
    )
