"""Where the documents of a batch begin and end, and which tokens see which.

Documents that begin alike (a system prompt) may share that beginning: it stands in the batch once, and they see it as
if it stood before each of them. What it says to them and what they say to it (its gradient) is the same.

Before: `dataset` counts. After: `attention` computes what sees each other; `flops` counts it.

Shapes: T tokens of all documents in the batch, N documents.
"""

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch


class Block(NamedTuple):
    """Queries and the keys that they see: all of them, or, if it is causal, the i-th the first i + 1."""

    queries: slice
    keys: slice
    is_causal: bool


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch begin and end.

    Args:
        lengths: tokens of each document, in order, without those that it shares.
        shared: how many tokens each document shares: it begins with as many tokens of the nearest document before it
            that shares none. Documents that share with the same one share as many.
        cu_seqlens: (N + 1,) int32 on the model's device: 0, then the running sum of the lengths.
        cu_seqlens_keys: the same of what each document sees, shared tokens included.
        key_places: which tokens these are, one document after the other; None where nothing is shared.
    """

    lengths: tuple[int, ...]
    shared: tuple[int, ...]
    cu_seqlens: torch.Tensor
    cu_seqlens_keys: torch.Tensor
    key_places: torch.Tensor | None

    @classmethod
    def of(
        cls, lengths: tuple[int, ...], device: torch.device | str = "cpu", shared: tuple[int, ...] = ()
    ) -> "Documents":
        """Bounds from lengths."""
        bounds = _running_sums(lengths).to(device)
        if not any(shared):
            return cls(lengths, (0,) * len(lengths), bounds, bounds, None)
        seen = tuple(own + before for own, before in zip(lengths, shared, strict=True))
        documents = cls(lengths, shared, bounds, _running_sums(seen).to(device), None)
        places = [torch.arange(span.start, span.stop) for seen in documents.keys for span in seen]
        return replace(documents, key_places=torch.cat(places).to(device))

    @functools.cached_property
    def keys(self) -> list[tuple[slice, slice]]:
        """What each document sees: the tokens that it shares, and its own."""
        found = []
        start = first = 0
        for length, shared in zip(self.lengths, self.shared, strict=True):
            first = first if shared else start
            found.append((slice(first, first + shared), slice(start, start + length)))
            start += length
        return found

    @property
    def longest(self) -> int:
        """The most tokens that one sees, itself included."""
        return max(own + before for own, before in zip(self.lengths, self.shared, strict=True))

    def blocks(self, runs: Sequence[slice] | None = None) -> list[Block]:
        """What each token sees: first every document itself, then what comes before it.

        Args:
            runs: tokens that look, in order, each run within a document; by default all of them. Queries are numbered
                by them.
        """
        own: list[Block] = []
        before: list[Block] = []
        sharing: dict[int, Block] = {}  # by where the shared tokens begin
        left = deque(runs if runs is not None else (span for _, span in self.keys))
        start = 0
        for shared, span in self.keys:
            first = start
            while left and left[0].start < span.stop:
                run = left.popleft()
                rows = slice(start, start + run.stop - run.start)
                own.append(Block(rows, run, is_causal=True))
                if run.start > span.start:
                    before.append(Block(rows, slice(span.start, run.start), is_causal=False))
                start = rows.stop
            if shared.stop > shared.start and start > first:  # those that share with one another are neighbours
                others = sharing.get(shared.start)
                rows = slice(others.queries.start if others else first, start)
                sharing[shared.start] = Block(rows, shared, is_causal=False)
        return [*own, *before, *sharing.values()]


def _running_sums(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)
