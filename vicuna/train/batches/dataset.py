"""Rows become tensors: the batch of one forward pass.

All documents of a micro-batch lie end to end on one axis, with their bounds beside them, so that no padding is ever
computed. Targets are shifted inside each document: its last token predicts nothing, so no document learns the first
word of the next.

Before: `tokenize` (tokens) and `packing` (which conversations). After: `model`.

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

LEAST_SHARED = 16
"""Tokens in common that are worth it: below, joining what two blocks of attention give costs more than it saves."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    Args:
        input_ids: (1, T).
        position_ids: (1, T), from 0 in each document, or from behind the tokens that it shares.
        targets: (T,) the next token where it is to be learned, else `IGNORE_INDEX`.
        documents: where each document begins and ends, and what it shares with an earlier one.
        num_supervised: targets to be learned.
        ids: the records in it.
        supervised_runs: where those targets lie, as runs; None if nobody has looked.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    documents: Documents
    num_supervised: int
    ids: tuple[str, ...]
    supervised_runs: Sequence[slice] | None = None


class ConversationDataset:
    """Tokenized conversations that can be asked for as batches.

    Args:
        conversations: the tokens.
        device: where the batches are needed.
        share_prefix: tokens that conversations of a batch have in common at their beginning stand in it once.
    """

    def __init__(
        self, conversations: TokenizedConversations, device: torch.device, *, share_prefix: bool = False
    ) -> None:
        self.conversations, self.device, self.share_prefix = conversations, device, share_prefix
        self._ends = torch.tensor(conversations.lengths).cumsum(0).tolist()
        starts = [end - length for end, length in zip(self._ends, conversations.lengths, strict=True)]
        is_learned = conversations.is_learned.numpy().view(np.uint8)
        self._supervised = np.add.reduceat(is_learned, starts, dtype=np.int64).tolist()

    def num_tokens(self, rows: Sequence[Row]) -> int:
        """Tokens in these rows."""
        return sum(self.conversations.lengths[item] for row in rows for item in row)

    def num_supervised(self, rows: Sequence[Row]) -> int:
        """Targets to be learned in these rows."""
        return sum(self._supervised[item] for row in rows for item in row)

    def lengths(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """Tokens of each document in a batch of these rows: its own, and those that it shares."""
        return [(self.conversations.lengths[item] - before, before) for item, before in self._arrange(rows)]

    def batch(self, rows: Sequence[Row]) -> Batch:
        """The conversations of these rows, end to end; without rows, one token that nothing is learned from."""
        if not any(rows):
            return self._idle_batch()
        items, shared = zip(*self._arrange(rows), strict=True)
        wholes = map(self._span, items)
        spans = [slice(whole.start + before, whole.stop) for whole, before in zip(wholes, shared, strict=True)]
        input_ids = torch.cat([self.conversations.input_ids[span] for span in spans]).long()  # (T,)
        is_learned = torch.cat([self.conversations.is_learned[span] for span in spans])  # (T,)
        # A document's first token is never learned, so rolling by one cannot carry a target into the one before it.
        targets = torch.where(is_learned, input_ids, IGNORE_INDEX).roll(-1)
        lengths = tuple(span.stop - span.start for span in spans)
        position_ids = torch.cat(
            [torch.arange(before, before + length) for before, length in zip(shared, lengths, strict=True)]
        )
        return Batch(
            input_ids.unsqueeze(0).to(self.device),
            position_ids.unsqueeze(0).to(self.device),
            targets.to(self.device),
            Documents.of(lengths, self.device, shared),
            int(is_learned.sum()),
            tuple(self.conversations.ids[item] for item in items),
            _runs(targets != IGNORE_INDEX),
        )

    def _span(self, item: int) -> slice:
        return slice(self._ends[item] - self.conversations.lengths[item], self._ends[item])

    def _arrange(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """The conversations in the order of their batch, each with the number of tokens that it shares.

        Those that begin alike stand one behind the other, and share with the first of them.
        """
        items = [item for row in rows for item in row]
        if not self.share_prefix:
            return [(item, 0) for item in items]
        beginnings = [self._beginning(item) for item in items]
        groups: list[tuple[list[int], int]] = []  # places among the items, and the tokens that all of them begin with
        for place in sorted(range(len(items)), key=lambda place: beginnings[place].tobytes()):
            members, common = groups[-1] if groups else ([place], 0)
            with_it = _num_alike(beginnings[members[0]][:common], beginnings[place])
            if with_it >= LEAST_SHARED and with_it * len(members) >= common * (len(members) - 1):  # it saves no less
                groups[-1] = ([*members, place], with_it)
            else:
                groups.append(([place], len(beginnings[place])))
        in_order = sorted((sorted(members), common) for members, common in groups)
        return [
            (items[place], common if number else 0)
            for members, common in in_order
            for number, place in enumerate(members)
        ]

    def _beginning(self, item: int) -> np.ndarray:
        """What a conversation may share: its tokens before the first that predicts a learned one."""
        span = self._span(item)
        first_learned = int(self.conversations.is_learned[span].numpy().argmax())
        tokens: np.ndarray = self.conversations.input_ids[span].numpy()
        return tokens[: first_learned - 1]

    def _idle_batch(self) -> Batch:
        """What a rank computes while the others have rows left: every rank must gather every layer equally often."""
        token = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        target = torch.full((1,), IGNORE_INDEX, device=self.device)
        return Batch(token, token, target, Documents.of((1,), self.device), 0, ())


def _runs(is_meant: torch.Tensor) -> list[slice]:
    """Where a (T,) mask is true, from one change to the next."""
    edges = np.flatnonzero(np.diff(is_meant.numpy().astype(np.int8), prepend=0, append=0)).tolist()
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _num_alike(one: np.ndarray, other: np.ndarray) -> int:
    """With how many equal tokens two texts begin."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
