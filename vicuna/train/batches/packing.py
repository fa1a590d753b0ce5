"""Which conversations share a row, and which rows make a step.

A row holds whole conversations and never more than `row_length` tokens, so next to nothing is padding. The plan of an
epoch is a pure function of (lengths, seed, epoch): the place in the data is the number of steps done, nothing else has
to be saved, and a resumed run finds its next rows without replaying the earlier ones.

Before: `tokenize` (the lengths). After: `dataset` (rows become tensors), `loop`.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

Row = tuple[int, ...]
"""The numbers of the conversations in one row."""


def pack(lengths: Sequence[int], row_length: int, order: Sequence[int] | None = None) -> list[Row]:
    """Best-fit decreasing: longest first, each into the fullest row that still has room for it.

    Open rows are kept in buckets by the room they have left, and one integer has a bit set for every bucket in use, so
    that the fullest fitting row is the lowest bit at or above the length. 70,000 conversations take about 0.1 s.

    Args:
        lengths: tokens of each conversation, each between 1 and `row_length`.
        row_length: the most tokens a row may hold.
        order: the order in which conversations of equal length are placed.
    """
    assert not lengths or 0 < min(lengths) <= max(lengths) <= row_length
    rows: list[list[int]] = []
    rows_by_room: dict[int, list[int]] = {}
    rooms_in_use = 0
    for item in sorted(range(len(lengths)) if order is None else order, key=lambda item: -lengths[item]):
        length = lengths[item]
        fitting = rooms_in_use >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            bucket = rows_by_room[room]
            row = bucket.pop()
            if not bucket:
                rooms_in_use ^= 1 << room
            rows[row].append(item)
        else:
            room, row = row_length, len(rows)
            rows.append([item])
        room -= length
        if room:
            rows_by_room.setdefault(room, []).append(row)
            rooms_in_use |= 1 << room
    return [tuple(row) for row in rows]


def plan_epoch(
    lengths: Sequence[int], row_length: int, rows_per_step: int, *, seed: int, epoch: int, packing: bool = True
) -> list[list[Row]]:
    """The steps of one epoch, each a list of at most `rows_per_step` rows; every conversation occurs exactly once.

    Every epoch has the same number of steps, because the number of rows depends on the lengths only; which of the
    equally long conversations meet in a row, and the order of the rows, are drawn anew. Where the rows do not divide
    evenly, steps differ by one row at most instead of leaving a small step for the end.

    Without packing every conversation is a row. The longest go first: within a step, so that what is computed together
    is about equally long, and among the steps, so that a run which does not fit into the memory fails at once.
    """
    draw = random.Random(f"{seed} {epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    rows: list[Row] = pack(lengths, row_length, order) if packing else [(item,) for item in order]
    draw.shuffle(rows)
    num_steps = -(-len(rows) // rows_per_step)
    bounds = [len(rows) * step // num_steps for step in range(num_steps + 1)] if rows else []
    steps = [rows[start:end] for start, end in pairwise(bounds)]
    if not packing:
        for step in steps:
            step.sort(key=lambda row: -lengths[row[0]])
        longest = max(lengths, default=0)
        steps.sort(key=lambda step: lengths[step[0][0]] < longest)  # a stable sort: the others stay as drawn
    return steps


class TrainingPlan:
    """Rows for every step of a run, over all its epochs.

    Args:
        lengths: tokens of each conversation.
        row_length: the most tokens in a row.
        rows_per_step: rows in a global step.
        seed: what the order is drawn from.
        packing: conversations share rows.
    """

    def __init__(
        self, lengths: Sequence[int], row_length: int, rows_per_step: int, *, seed: int, packing: bool = True
    ) -> None:
        self.lengths, self.row_length, self.rows_per_step = lengths, row_length, rows_per_step
        self.seed, self.packing = seed, packing
        self._epoch = 0
        self._steps = self._plan(0)
        self.steps_per_epoch = len(self._steps)
        self.num_rows = sum(map(len, self._steps))
        self.fill = sum(lengths) / (self.num_rows * row_length) if lengths else 0.0

    def rows(self, step: int) -> list[Row]:
        """The rows of a step (counted from 0 over the whole run)."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._steps = self._plan(epoch)
        return self._steps[step_in_epoch]

    def _plan(self, epoch: int) -> list[list[Row]]:
        return plan_epoch(
            self.lengths, self.row_length, self.rows_per_step, seed=self.seed, epoch=epoch, packing=self.packing
        )


def deal(rows: Sequence[Row], lengths: Sequence[int], rows_per_batch: int, num_ranks: int) -> list[list[list[Row]]]:
    """Cut a step's rows into micro-batches and deal these to the ranks.

    Ranks wait for each other at every layer, so the rows that are computed at the same time should cost the same: the
    costliest go first, and within one micro-batch the ranks take them to and fro. Rows are full, so what tells them
    apart is attention, which grows with the squares of the lengths. (What documents share is not looked at.)

    Returns:
        For every rank the same number of micro-batches; the last may be empty where the rows do not come out even.
    """
    if num_ranks == 1:
        return [[list(rows[start : start + rows_per_batch]) for start in range(0, len(rows), rows_per_batch)]]
    by_cost = sorted(rows, key=lambda row: -sum(lengths[item] ** 2 for item in row))
    batches: list[list[list[Row]]] = [[] for _ in range(num_ranks)]
    for start in range(0, len(rows), rows_per_batch * num_ranks):
        hands: list[list[Row]] = [[] for _ in range(num_ranks)]
        for place, row in enumerate(by_cost[start : start + rows_per_batch * num_ranks]):
            turn, seat = divmod(place, num_ranks)
            hands[seat if turn % 2 == 0 else num_ranks - 1 - seat].append(row)
        for rank, hand in enumerate(hands):
            batches[rank].append(hand)
    return batches
