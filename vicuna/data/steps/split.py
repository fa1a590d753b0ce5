"""The step `split`: counts a conversation's tokens, and cuts one that is too long between rounds.

A round is a question with all that follows up to the next question. Pieces are filled from the front, each with the
system text of the whole, and counted as the trainer counts them, with the training template and its tokenizer. Every
round is in exactly one piece as training data. A round that is too long by itself is left out, its answer is cut at
the end of a block (`cut`), or it is kept and marked, as the user chooses. How many rounds fit is searched, a few counts
for each piece, so that a large budget takes no longer than a small one.

A later piece may repeat the rounds before it as context. `context_messages` counts their messages, which stand after
the system text; the trainer does not supervise them a second time.
"""

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vicuna.conversation import CountTokens, Message, TemplateError
from vicuna.data.options import OverLong
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Split, Step
from vicuna.data.steps.cut import shorten

CONTEXT, OVER_LONG = "context_messages", "over_long"  # keys of a record
CONTEXT_SHARE = 0.5  # of the budget, so that enough is left for new rounds
RULES = {
    "too_long": "every round alone is longer than the token budget",
    "round_too_long": "one round alone is longer than the token budget; left out, and a new piece begins after it",
    "answer_cut": "one round alone is longer than the token budget; its answer ends earlier, where a block ends",
    "bad_context": "context_messages is no number of messages, or leaves nothing to learn",
    "over_long_kept": "one round alone is longer than the token budget; kept as a piece of its own, marked over_long",
}


@dataclass(frozen=True)
class Round:
    """Neighbouring messages, with the places of their turns in the file."""

    messages: tuple[Message, ...]
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Sections:
    """The messages of a record by sections.

    Attributes:
        context: rounds at the start that are supervised in an earlier piece.
        rounds: all other rounds.
    """

    system: Round
    context: tuple[Round, ...]
    rounds: tuple[Round, ...]


@dataclass
class _Piece:
    rounds: list[Round]
    size: int
    num_context: int = 0  # of the rounds
    is_over_long: bool = False


def split_step(
    count_tokens: CountTokens, max_tokens: int | None, over_long: OverLong = "drop", carry_over: int = 0
) -> Step:
    """The step. Without `max_tokens` it only counts.

    Args:
        over_long: what becomes of a round that alone is longer than `max_tokens`.
        carry_over: how many earlier rounds, at most, a later piece repeats as context. They take at most half of the
            budget.
    """

    def run(record: Record) -> Outcome:
        given = record.extra.get(CONTEXT, 0)
        record = _with_current_context(record)
        if not _is_count(given) or (given and not sections_of(record).rounds):
            return Drop(Finding("bad_context", f"{CONTEXT} is {given!r}"))
        try:
            size = count_tokens(record.messages)
            if max_tokens is None or size <= max_tokens:
                return Keep(_with_extra(record, num_tokens=size))
            return _Splitter(record, count_tokens, max_tokens, over_long, carry_over).split()
        except TemplateError as error:
            raise TemplateError(f"record {record.id} ({record.source}): {error}") from None

    return Step("split", 2, RULES, run)


def sections_of(record: Record) -> Sections:
    """System text, context and rounds. Every message is in exactly one of them, whatever the order of roles."""
    found: list[list[int]] = []
    is_answered = False  # whether the last round has more than questions
    num_system = 0
    for index, message in enumerate(record.messages):
        if not found and message.role == "system":
            num_system += 1
            continue
        # Questions that follow one another are one.
        if not found or (message.role == "user" and is_answered):
            found.append([])
            is_answered = False
        found[-1].append(index)
        is_answered = is_answered or message.role != "user"
    num_context = record.extra.get(CONTEXT, 0)
    known_until = num_system + (num_context if _is_count(num_context) else 0)
    num_known = sum(indices[-1] < known_until for indices in found)
    rounds = tuple(_round(record, indices) for indices in found)
    return Sections(_round(record, range(num_system)), rounds[:num_known], rounds[num_known:])


def count_rounds(record: Record, outcome: Outcome) -> tuple[int, int, int]:
    """The numbers of rounds (without context) that came into the step, came out of it, and were left out."""
    num_in = len(sections_of(_with_current_context(record)).rounds)
    if isinstance(outcome, Keep) and outcome.record.messages is record.messages:
        return num_in, num_in, 0
    if isinstance(outcome, Keep | Split):
        pieces = outcome.records if isinstance(outcome, Split) else (outcome.record,)
        dropped = sum(repair.rule == "round_too_long" for repair in outcome.repairs)
        return num_in, sum(len(sections_of(piece).rounds) for piece in pieces), dropped
    return num_in, 0, num_in


def _round(record: Record, indices: Sequence[int]) -> Round:
    return Round(tuple(record.messages[at] for at in indices), tuple(record.turns[at] for at in indices))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _with_current_context(record: Record) -> Record:
    """The record with `context_messages` counted anew: earlier steps may have left out some of the messages."""
    given = record.extra.get(CONTEXT, 0)
    if not given or not _is_count(given):
        return record
    num_system = next((at for at, message in enumerate(record.messages) if message.role != "system"), 0)
    number = sum(turn < num_system + given for turn in record.turns[num_system:])
    extra = {key: value for key, value in record.extra.items() if key != CONTEXT}
    return replace(record, extra=extra | ({CONTEXT: number} if number else {}))


def _with_extra(record: Record, **extra: Any) -> Record:
    return replace(record, extra=record.extra | extra)


@dataclass
class _Splitter:
    """Splits one record."""

    record: Record
    count_tokens: CountTokens
    max_tokens: int
    over_long: OverLong
    carry_over: int
    pieces: list[_Piece] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = sections_of(self.record)
        self.system, self.rounds = parts.system, parts.rounds
        self.ends = _running_lengths(parts.rounds)
        self.num_carried = max(self.carry_over, len(parts.context))  # in the first piece; then as asked for
        # The rounds right before the next one, as far as they may be context.
        self.earlier = deque(parts.context, maxlen=self.num_carried)

    def split(self) -> Outcome:
        start = 0
        while start < len(self.rounds):
            round = self.rounds[start]
            if (size := self._count(round)) > self.max_tokens:
                self._add_over_long(round, size)
                self.earlier.clear()
                start += 1
                continue
            piece = self._new_piece(round, size)
            self.pieces.append(piece)
            start += 1
            num_more = self._fill(piece, start)
            if self.num_carried != self.carry_over:
                self.num_carried = self.carry_over
                self.earlier = deque(self.earlier, maxlen=self.carry_over)
            self.earlier.extend(self.rounds[start - 1 : start + num_more])
            start += num_more
        return self._outcome()

    def _count(self, *rounds: Round) -> int:
        return self.count_tokens([*self.system.messages, *(message for round in rounds for message in round.messages)])

    def _new_piece(self, round: Round, size: int) -> _Piece:
        """A piece that begins with this round, after as many earlier rounds as are wanted as context and fit."""
        nearest = list(reversed(self.earlier))
        sizes: dict[int, int] = {0: size}

        def fill(number: int) -> float:
            context = nearest[:number][::-1]
            sizes[number] = self._count(*context, round)
            return max(sizes[number] / self.max_tokens, self._count(*context) / (self.max_tokens * CONTEXT_SHARE))

        number = most_that_fit(fill, size / self.max_tokens, _running_lengths(nearest)) if nearest else 0
        return _Piece([*nearest[:number][::-1], round], sizes[number], number)

    def _fill(self, piece: _Piece, start: int) -> int:
        """Add the rounds from `start` on to the piece, as many as fit; returns their number."""
        own, sizes = list(piece.rounds), {0: piece.size}

        def fill(number: int) -> float:
            sizes[number] = self._count(*own, *self.rounds[start : start + number])
            return sizes[number] / self.max_tokens

        number = most_that_fit(fill, piece.size / self.max_tokens, self.ends, start)
        piece.rounds += self.rounds[start : start + number]
        piece.size = sizes[number]
        return number

    def _add_over_long(self, round: Round, size: int) -> None:
        turn = round.turns[0]
        if self.over_long == "keep":
            self.pieces.append(_Piece([round], size, is_over_long=True))
            self.findings.append(Finding("over_long_kept", f"{size} tokens", turn))
        elif self.over_long == "cut" and (cut := self._cut(round)) is not None:
            new_size = self._count(cut)
            self.pieces.append(_Piece([cut], new_size))
            self.findings.append(Finding("answer_cut", f"{new_size} of {size} tokens kept", turn))
        else:
            self.findings.append(Finding("round_too_long", f"{size} tokens", turn))

    def _cut(self, round: Round) -> Round | None:
        """As much of the round as fits, up to the end of a block of an answer; None if no answer is left."""

        def first(number: int, last: Message | None = None) -> Round:
            messages = round.messages[:number] + (() if last is None else (last,))
            return Round(messages, round.turns[: len(messages)])

        ends = list(itertools.accumulate((len(message.content) for message in round.messages), initial=0))
        at = most_that_fit(lambda number: self._count(first(number)) / self.max_tokens, 0, ends)
        breaking = round.messages[at]  # with this message the round becomes too long
        if breaking.role == "assistant":
            text = shorten(
                breaking.content,
                lambda text: self._count(first(at, Message("assistant", text))) <= self.max_tokens,
            )
            if text is not None:
                return first(at, Message("assistant", text))
        while at and round.messages[at - 1].role != "assistant":
            at -= 1
        return first(at) if at else None

    def _outcome(self) -> Outcome:
        if not self.pieces:
            evidence = self.findings[0].evidence if self.findings else f"{self._count()} tokens"
            return Drop(Finding("too_long", evidence, self.findings[0].turn if self.findings else None))
        records = [self._record(piece) for piece in self.pieces]
        if len(records) == 1:
            return Keep(records[0], tuple(self.findings))
        return Split(
            tuple(replace(record, id=f"{record.id}#{number}") for number, record in enumerate(records, 1)),
            tuple(self.findings),
        )

    def _record(self, piece: _Piece) -> Record:
        own = {key: value for key, value in self.record.extra.items() if key not in (CONTEXT, OVER_LONG)}
        own["num_tokens"] = piece.size
        if piece.num_context:
            own[CONTEXT] = sum(len(round.messages) for round in piece.rounds[: piece.num_context])
        if piece.is_over_long:
            own[OVER_LONG] = True
        parts = (self.system, *piece.rounds)
        return replace(
            self.record,
            messages=tuple(message for part in parts for message in part.messages),
            turns=tuple(turn for part in parts for turn in part.turns),
            extra=own,
        )


def most_that_fit(fill: Callable[[int], float], first: float, ends: Sequence[int], start: int = 0) -> int:
    """How many things fit, found in a few tries however many there are: where the lengths say that it is full.

    Args:
        fill: how full it is with the first so many; it fits up to 1. More things never take less.
        first: how full it is without any; it fits.
        ends: the running sum of the things' lengths, from 0; those before `start` are left out.
    """
    low, high, low_fill, high_fill = 0, len(ends) - start, first, 0.0  # `low` fits; `high` does not, or is too many
    for turn in itertools.count():
        if high - low <= 1:
            return low
        begin, size = ends[start], ends[start + low] - ends[start]
        if high_fill > low_fill:  # between the two, by length; each third time halfway, whatever the lengths say
            goal = size + (ends[start + high] - begin - size) * (1 - low_fill) / (high_fill - low_fill)
            guess = bisect_right(ends, begin + goal, start) - 1 - start if turn % 3 else (low + high) // 2
        else:  # no more than four times what is known, so that little is counted which does not fit
            goal = min(size / low_fill if low_fill and size else 0, 4 * size)
            guess = bisect_right(ends, begin + goal, start) - 1 - start
        guess = min(max(guess, low + 1), high - 1)
        found = fill(guess)
        if found <= 1:
            low, low_fill = guess, found
        else:
            high, high_fill = guess, found
    raise AssertionError


def _running_lengths(rounds: Sequence[Round]) -> list[int]:
    """The characters of the first so many rounds."""
    return list(itertools.accumulate((sum(len(m.content) for m in round.messages) for round in rounds), initial=0))
