"""Rows become tensors: the batch of one forward pass.

All documents of a micro-batch lie end to end on one axis, with their bounds beside them, so that no padding is ever
computed. Targets are shifted inside each document: its last token predicts nothing, so no document learns the first
word of the next.

Before: `tokenize` (tokens) and `packing` (which conversations). After: `model`.

Shapes: T tokens of all documents in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.attention import Documents
from vicuna.train.packing import Row
from vicuna.train.tokenize import TokenizedConversations


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

    def batch(self, rows: Sequence[Row]) -> Batch:
        """The conversations of these rows, end to end."""
        items = [item for row in rows for item in row]
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

    def micro_batches(self, rows: Sequence[Row], rows_per_batch: int) -> list[Batch]:
        """The rows of a step, `rows_per_batch` at a time."""
        return [self.batch(rows[start : start + rows_per_batch]) for start in range(0, len(rows), rows_per_batch)]
