"""The work of an epoch: conversations, tokens and rows, and the largest micro-batch.

Counted on the tokenized records of a run, or assumed from two numbers where there are no records yet.

Before: `tokenize`, or the planner's flags. After: `report`, `preflight`.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import PackedEpochs, Row

LENGTH_QUANTILES = (0.02, 0.2, 0.4, 0.6, 0.78, 0.93, 1.1, 1.32, 1.62, 1.95, 2.18)
"""Lengths of ShareGPT conversations as multiples of their mean: the shortest, the deciles, the longest."""


@dataclass(frozen=True)
class Workload:
    """One epoch.

    Args:
        source: of the figures: counted or stated.
        num_supervised_in_all: supervised tokens of the epoch.
        num_computed: tokens of the epoch, shared prefixes of a row counted once.
        pair_sum: twice the pairs of query and key, over the epoch.
        fill: share of the rows that is not padding.
        lengths: of the documents of the largest micro-batch of one GPU, without the tokens of shared prefixes.
        shared: tokens of each document's shared prefix.
        num_supervised: supervised tokens of that micro-batch, at most.
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


def count_workload(dataset: ConversationDataset, epochs: PackedEpochs, rows_per_batch: int) -> Workload:
    """The workload of tokenized records."""
    tokens = dataset.conversations
    return _workload("counted", epochs, tokens.num_supervised, rows_per_batch, dataset.num_supervised, dataset.lengths)


def assume_workload(
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
    """The workload of so many conversations, with lengths distributed as ShareGPT's; the longer ones are split."""
    mean = num_tokens / num_conversations
    lengths: list[int] = []
    for number in range(num_conversations):
        position = (number + 0.5) / num_conversations * (len(LENGTH_QUANTILES) - 1)
        low, high = LENGTH_QUANTILES[int(position)], LENGTH_QUANTILES[int(position) + 1]
        length = max(2, round(mean * (low + (high - low) * (position % 1))))
        lengths += [max_length] * (length // max_length)
        if (rest := length % max_length) >= 2:
            lengths.append(rest)
    epochs = PackedEpochs(lengths, row_length, rows_per_step, seed=seed)
    num_supervised = round(sum(lengths) * supervised_share)
    return _workload(
        "stated",
        epochs,
        num_supervised,
        rows_per_batch,
        lambda rows: sum(lengths[item] for row in rows for item in row),
        lambda rows: [(lengths[item], 0) for row in rows for item in row],
    )


def largest_micro_batch(max_length: int, row_length: int, rows_per_batch: int) -> tuple[int, ...]:
    """The largest micro-batch there can be, in documents as long as allowed."""
    row = [max_length] * (row_length // max_length)
    if rest := row_length % max_length:
        row.append(rest)
    return tuple(row * rows_per_batch)


def _workload(
    source: str,
    epochs: PackedEpochs,
    num_supervised: int,
    rows_per_batch: int,
    supervised_in: Callable[[Sequence[Row]], int],
    lengths_of: Callable[[Sequence[Row]], list[tuple[int, int]]],
) -> Workload:
    rows = [[row] for step in range(epochs.steps_per_epoch) for row in epochs.rows(step)]
    # Prefixes that several rows of a micro-batch share are left out: which rows meet is known only in the step.
    shapes = [lengths_of(row) for row in rows]
    largest = heapq.nlargest(rows_per_batch, shapes, key=lambda shape: sum(own for own, _ in shape))
    lengths, shared = zip(*(document for shape in largest for document in shape), strict=True)
    supervised = sum(heapq.nlargest(rows_per_batch, map(supervised_in, rows)))
    return Workload(
        source,
        len(epochs.lengths),
        sum(epochs.lengths),
        num_supervised,
        sum(own for shape in shapes for own, _ in shape),
        sum(own * (own + 2 * shared) for shape in shapes for own, shared in shape),
        epochs.num_rows,
        epochs.steps_per_epoch,
        epochs.fill,
        lengths,
        shared,
        min(supervised, sum(lengths)),
    )
