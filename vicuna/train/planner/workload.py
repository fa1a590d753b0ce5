"""What a run has to compute: conversations, tokens and rows of an epoch, and its largest micro-batch.

Counted on the tokenized records of a run, or made up from two numbers when there are no records yet.

Before: `tokenize`, or the planner's flags. After: `plan`.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import Row, TrainingPlan

SPREAD = (0.02, 0.2, 0.4, 0.6, 0.78, 0.93, 1.1, 1.32, 1.62, 1.95, 2.18)
"""Lengths of ShareGPT conversations as multiples of their mean: the shortest, the deciles, the longest."""


@dataclass(frozen=True)
class Workload:
    """One epoch.

    Args:
        source: where the figures come from, in words.
        lengths: of the documents of the largest micro-batch of one GPU, without the tokens that they share.
        shared: how many those are, for each of them.
        num_supervised: tokens of it that are learned, at most.
        num_computed: tokens of the epoch, those that the documents of a row share counted once.
        pair_sum: twice the pairs of tokens that see each other, over the epoch.
        fill: share of the rows that is not padding.
    """

    source: str
    num_conversations: int
    num_tokens: int
    num_supervised_in_all: int
    num_computed: int
    pair_sum: int
    num_rows: int
    steps_per_epoch: int
    fill: float
    lengths: tuple[int, ...]
    shared: tuple[int, ...]
    num_supervised: int


def count_workload(dataset: ConversationDataset, plan: TrainingPlan, rows_per_batch: int) -> Workload:
    """The workload of records that are tokenized."""
    tokens = dataset.conversations
    return _workload("counted", plan, tokens.num_supervised, rows_per_batch, dataset.num_supervised, dataset.lengths)


def imagine_workload(
    num_conversations: int,
    num_tokens: int,
    supervised_share: float,
    *,
    max_length: int,
    row_length: int,
    rows_per_step: int,
    rows_per_batch: int,
    seed: int,
) -> Workload:
    """The workload of so many conversations, spread about their mean as ShareGPT's; the longer ones are split."""
    mean = num_tokens / num_conversations
    lengths: list[int] = []
    for number in range(num_conversations):
        place = (number + 0.5) / num_conversations * (len(SPREAD) - 1)
        low, high = SPREAD[int(place)], SPREAD[int(place) + 1]
        length = max(2, round(mean * (low + (high - low) * (place % 1))))
        lengths += [max_length] * (length // max_length)
        if (rest := length % max_length) >= 2:
            lengths.append(rest)
    plan = TrainingPlan(lengths, row_length, rows_per_step, seed=seed)
    supervised = round(sum(lengths) * supervised_share)
    return _workload(
        "stated",
        plan,
        supervised,
        rows_per_batch,
        lambda rows: sum(lengths[item] for row in rows for item in row),
        lambda rows: [(lengths[item], 0) for row in rows for item in row],
    )


def one_micro_batch(max_length: int, row_length: int, rows_per_batch: int) -> tuple[int, ...]:
    """The largest micro-batch there can be, in documents as long as allowed."""
    row = [max_length] * (row_length // max_length)
    if rest := row_length % max_length:
        row.append(rest)
    return tuple(row * rows_per_batch)


def _workload(
    source: str,
    plan: TrainingPlan,
    num_supervised: int,
    rows_per_batch: int,
    supervised_in: Callable[[Sequence[Row]], int],
    lengths_of: Callable[[Sequence[Row]], list[tuple[int, int]]],
) -> Workload:
    rows = [[row] for step in range(plan.steps_per_epoch) for row in plan.rows(step)]
    # Rows of a micro-batch share among each other too; which of them meet is known only then, so that is left out.
    shapes = [lengths_of(row) for row in rows]
    largest = heapq.nlargest(rows_per_batch, shapes, key=lambda shape: sum(own for own, _ in shape))
    lengths, shared = zip(*(document for shape in largest for document in shape), strict=True)
    supervised = sum(heapq.nlargest(rows_per_batch, map(supervised_in, rows)))
    return Workload(
        source,
        len(plan.lengths),
        sum(plan.lengths),
        num_supervised,
        sum(own for shape in shapes for own, _ in shape),
        sum(own * (own + 2 * shared) for shape in shapes for own, shared in shape),
        plan.num_rows,
        plan.steps_per_epoch,
        plan.fill,
        lengths,
        shared,
        min(supervised, sum(lengths)),
    )
