"""Where the documents of a batch begin and end, and which tokens each token attends to.

Documents with a common prefix (a system prompt) may share it: it is in the batch once, and their tokens attend to
it as if it stood before each of them. Outputs and gradients are the same as without sharing.

Before: `dataset` gives the lengths. After: `attention` computes by these bounds; `flops` counts.

Shapes: T tokens of all documents in the batch, N documents.
"""

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch


class Block(NamedTuple):
    """A range of queries and the range of keys they attend to: all keys; if causal, query i the first i + 1 of them."""

    queries: slice
    keys: slice
    is_causal: bool


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch begin and end.

    Args:
        lengths: tokens of each document, in order, without those of a shared prefix.
        shared: tokens of each document's shared prefix: the first so many of the nearest document before it that itself
            shares none. Documents that share with the same document share as many tokens.
        cu_seqlens: (N + 1,) int32 on the model's device: 0, then the running sum of the lengths.
        cu_seqlens_keys: (N + 1,) int32, the same for the keys of each document, its shared prefix included.
        key_indices: the batch's tokens that are these keys, one document after the other; None where nothing is shared.
    """

    lengths: tuple[int, ...]
    shared: tuple[int, ...]
    cu_seqlens: torch.Tensor
    cu_seqlens_keys: torch.Tensor
    key_indices: torch.Tensor | None

    @classmethod
    def of(
        cls, lengths: tuple[int, ...], device: torch.device | str = "cpu", shared: tuple[int, ...] = ()
    ) -> "Documents":
        """From the lengths of the documents, and those of the prefixes they share."""
        bounds = _running_sums(lengths).to(device)
        if not any(shared):
            return cls(lengths, (0,) * len(lengths), bounds, bounds, None)
        num_keys = tuple(own + prefix for own, prefix in zip(lengths, shared, strict=True))
        documents = cls(lengths, shared, bounds, _running_sums(num_keys).to(device), None)
        indices = [torch.arange(span.start, span.stop) for spans in documents.keys for span in spans]
        return replace(documents, key_indices=torch.cat(indices).to(device))

    @functools.cached_property
    def keys(self) -> list[tuple[slice, slice]]:
        """The keys of each document: its shared prefix, and its own tokens."""
        found = []
        start = first = 0
        for length, shared in zip(self.lengths, self.shared, strict=True):
            first = first if shared else start
            found.append((slice(first, first + shared), slice(start, start + length)))
            start += length
        return found

    @property
    def longest(self) -> int:
        """The most keys of a document, shared prefix included."""
        return max(own + before for own, before in zip(self.lengths, self.shared, strict=True))

    def blocks(self, query_spans: Sequence[slice] | None = None) -> list[Block]:
        """The blocks of attention: first the causal ones, then those of earlier tokens, then those of shared prefixes.

        Args:
            query_spans: the tokens that are queries, in order, each span within a document; by default all tokens. A
                block counts its queries in these alone.
        """
        causal: list[Block] = []
        earlier: list[Block] = []
        shared_blocks: dict[int, Block] = {}  # by the start of the shared prefix
        left = deque(query_spans if query_spans is not None else (own for _, own in self.keys))
        start = 0
        for shared, own in self.keys:
            first = start
            while left and left[0].start < own.stop:
                span = left.popleft()
                queries = slice(start, start + span.stop - span.start)
                causal.append(Block(queries, span, is_causal=True))
                if span.start > own.start:
                    earlier.append(Block(queries, slice(own.start, span.start), is_causal=False))
                start = queries.stop
            if shared.stop > shared.start and start > first:  # documents that share a prefix are neighbours
                others = shared_blocks.get(shared.start)
                queries = slice(others.queries.start if others else first, start)
                shared_blocks[shared.start] = Block(queries, shared, is_causal=False)
        return [*causal, *earlier, *shared_blocks.values()]


def _running_sums(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)
