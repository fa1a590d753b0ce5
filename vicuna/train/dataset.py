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
from vicuna.train.attention import Documents
from vicuna.train.packing import Row
from vicuna.train.token_cache import TokenizedConversations


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    Args:
        input_ids: (1, T).
        position_ids: (1, T), from 0 in each document.
        targets: (T,) the next token where it is to be learned, else `IGNORE_INDEX`.
        documents: where each document begins and ends.
        num_supervised: targets to be learned.
        ids: the records in it.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    documents: Documents
    num_supervised: int
    ids: tuple[str, ...]


class ConversationDataset:
    """Tokenized conversations that can be asked for as batches.

    Args:
        conversations: the tokens.
        device: where the batches are needed.
    """

    def __init__(self, conversations: TokenizedConversations, device: torch.device) -> None:
        self.conversations, self.device = conversations, device
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

    def batch(self, rows: Sequence[Row]) -> Batch:
        """The conversations of these rows, end to end; without rows, one token that nothing is learned from."""
        items = [item for row in rows for item in row]
        if not items:
            return self._idle_batch()
        lengths = tuple(self.conversations.lengths[item] for item in items)
        ends = [self._ends[item] for item in items]
        spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        input_ids = torch.cat([self.conversations.input_ids[span] for span in spans]).long()  # (T,)
        is_learned = torch.cat([self.conversations.is_learned[span] for span in spans])  # (T,)
        # A document's first token is never learned, so rolling by one cannot carry a target into the one before it.
        targets = torch.where(is_learned, input_ids, IGNORE_INDEX).roll(-1)
        position_ids = torch.cat([torch.arange(length) for length in lengths])
        return Batch(
            input_ids.unsqueeze(0).to(self.device),
            position_ids.unsqueeze(0).to(self.device),
            targets.to(self.device),
            Documents.of(lengths, self.device),
            int(is_learned.sum()),
            tuple(self.conversations.ids[item] for item in items),
        )

    def _idle_batch(self) -> Batch:
        """What a rank computes while the others have rows left: every rank must gather every layer equally often."""
        token = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        target = torch.full((1,), IGNORE_INDEX, device=self.device)
        return Batch(token, token, target, Documents.of((1,), self.device), 0, ())
