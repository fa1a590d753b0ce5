"""Rows become tensors: the batch of one forward pass.

All documents of a micro-batch lie end to end on one axis, with their bounds beside them, so that no padding is ever
computed. Labels are shifted inside each document: its last token has none, so no document is trained to predict the
first token of the next.

Before: `tokenize` (tokens) and `packing` (which examples). After: the model.

Shapes: T tokens of all documents in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.batches.documents import Documents
from vicuna.train.batches.packing import Row
from vicuna.train.batches.token_cache import TokenizedConversations

MIN_SHARED = 16
"""The shortest prefix worth sharing, in tokens: below, joining two blocks of attention costs more than it saves."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    Args:
        input_ids: (1, T).
        position_ids: (1, T), from 0 in each document, or from the length of its shared prefix.
        labels: (T,) shifted by one: the next token where that is supervised, else `IGNORE_INDEX`.
        documents: where each document begins and ends, and the prefix it shares with an earlier one.
        num_supervised: labels that are not `IGNORE_INDEX`.
        ids: of the records in it.
        supervised_spans: the ranges of those labels in T; None where they are not known.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    documents: Documents
    num_supervised: int
    ids: tuple[str, ...]
    supervised_spans: Sequence[slice] | None = None


class ConversationDataset:
    """Tokenized conversations, given out as batches.

    Args:
        conversations: the examples.
        device: of the batches.
        share_prefix: a prefix that several examples of a batch have in common is in it once.
    """

    def __init__(
        self, conversations: TokenizedConversations, device: torch.device, *, share_prefix: bool = False
    ) -> None:
        self.conversations, self.device, self.share_prefix = conversations, device, share_prefix
        self._ends = torch.tensor(conversations.lengths).cumsum(0).tolist()
        starts = [end - length for end, length in zip(self._ends, conversations.lengths, strict=True)]
        is_supervised = conversations.is_supervised.numpy().view(np.uint8)
        self._num_supervised = np.add.reduceat(is_supervised, starts, dtype=np.int64).tolist()

    def num_tokens(self, rows: Sequence[Row]) -> int:
        """Tokens in these rows."""
        return sum(self.conversations.lengths[item] for row in rows for item in row)

    def num_supervised(self, rows: Sequence[Row]) -> int:
        """Supervised tokens in these rows."""
        return sum(self._num_supervised[item] for row in rows for item in row)

    def lengths(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """Tokens of each document in a batch of these rows: its own, and those of its shared prefix."""
        return [(self.conversations.lengths[item] - prefix, prefix) for item, prefix in self._with_prefixes(rows)]

    def batch(self, rows: Sequence[Row]) -> Batch:
        """The examples of these rows, end to end; without rows, one token without a label."""
        if not any(rows):
            return self._idle_batch()
        items, shared = zip(*self._with_prefixes(rows), strict=True)
        whole_spans = map(self._span, items)
        spans = [slice(whole.start + prefix, whole.stop) for whole, prefix in zip(whole_spans, shared, strict=True)]
        input_ids = torch.cat([self.conversations.input_ids[span] for span in spans]).long()  # (T,)
        is_supervised = torch.cat([self.conversations.is_supervised[span] for span in spans])  # (T,)
        # A document's first token is never supervised, so rolling by one carries no label into the document before it.
        labels = torch.where(is_supervised, input_ids, IGNORE_INDEX).roll(-1)
        lengths = tuple(span.stop - span.start for span in spans)
        position_ids = torch.cat(
            [torch.arange(prefix, prefix + length) for prefix, length in zip(shared, lengths, strict=True)]
        )
        return Batch(
            input_ids.unsqueeze(0).to(self.device),
            position_ids.unsqueeze(0).to(self.device),
            labels.to(self.device),
            Documents.of(lengths, self.device, shared),
            int(is_supervised.sum()),
            tuple(self.conversations.ids[item] for item in items),
            _spans_where(labels != IGNORE_INDEX),
        )

    def _span(self, item: int) -> slice:
        return slice(self._ends[item] - self.conversations.lengths[item], self._ends[item])

    def _with_prefixes(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """The examples in the order of their batch, each with the length of its shared prefix.

        Examples with a common prefix are neighbours, and the first of them has the prefix for all.
        """
        items = [item for row in rows for item in row]
        if not self.share_prefix:
            return [(item, 0) for item in items]
        prefixes = [self._shareable(item) for item in items]
        groups: list[tuple[list[int], int]] = []  # indices into `items`, and the length of their common prefix
        for index in sorted(range(len(items)), key=lambda index: prefixes[index].tobytes()):
            members, common = groups[-1] if groups else ([index], 0)
            joined = _common_length(prefixes[members[0]][:common], prefixes[index])
            if joined >= MIN_SHARED and joined * len(members) >= common * (len(members) - 1):  # it saves no less
                groups[-1] = ([*members, index], joined)
            else:
                groups.append(([index], len(prefixes[index])))
        in_order = sorted((sorted(members), common) for members, common in groups)
        return [
            (items[index], common if number else 0)
            for members, common in in_order
            for number, index in enumerate(members)
        ]

    def _shareable(self, item: int) -> np.ndarray:
        """The tokens that an example may share: those before the first that predicts a supervised one."""
        span = self._span(item)
        first_supervised = int(self.conversations.is_supervised[span].numpy().argmax())
        tokens: np.ndarray = self.conversations.input_ids[span].numpy()
        return tokens[: first_supervised - 1]

    def _idle_batch(self) -> Batch:
        """The batch of a rank without rows in a micro-batch: all ranks must gather every layer equally often."""
        token = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        label = torch.full((1,), IGNORE_INDEX, device=self.device)
        return Batch(token, token, label, Documents.of((1,), self.device), 0, ())


def _spans_where(mask: torch.Tensor) -> list[slice]:
    """The ranges in which a (T,) mask is true."""
    edges = np.flatnonzero(np.diff(mask.numpy().astype(np.int8), prepend=0, append=0)).tolist()
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _common_length(one: np.ndarray, other: np.ndarray) -> int:
    """The number of equal tokens with which two texts begin."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
