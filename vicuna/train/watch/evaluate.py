"""The loss on held-out conversations, which training never sees.

Before: `loop` calls it before the first step, in between and after the last. After: `metrics` logs it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import Row
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.parallel import reshard
from vicuna.train.ranks import Ranks
from vicuna.train.signals import StopSignal


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats per supervised token, and the number of these."""

    loss: float
    num_supervised: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def evaluate(
    model: ConversationModel, dataset: ConversationDataset, rows: Sequence[Row], stop: StopSignal, ranks: Ranks
) -> Evaluation | None:
    """The loss over all rows, one at a time on every rank; None if a stop signal came before the last of them."""
    model.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=ranks.device)
    for start in range(0, len(rows), ranks.size):
        if stop.agree(ranks.all_reduce(torch.tensor(stop.flags(), device=ranks.device)).tolist()):
            reshard(model)
            return None
        loss_sum += model(dataset.batch(rows[start : start + ranks.size][ranks.rank : ranks.rank + 1]))
    reshard(model)
    num_supervised = dataset.num_supervised(rows)
    return Evaluation(ranks.all_reduce(loss_sum).item() / num_supervised, num_supervised)
