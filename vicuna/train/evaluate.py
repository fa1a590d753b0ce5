"""The loss on conversations that training never sees: the figure that says whether it learned or memorised.

Before: `loop` calls it before the first step, in between and after the last. After: `metrics` logs it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vicuna.train.dataset import ConversationDataset
from vicuna.train.model import ConversationModel
from vicuna.train.packing import Row
from vicuna.train.signals import StopSignal


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats per supervised token, and over how many of them."""

    loss: float
    num_supervised: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def evaluate(
    model: ConversationModel, dataset: ConversationDataset, rows: Sequence[Row], stop: StopSignal
) -> Evaluation | None:
    """The loss over all rows, one at a time; None if a stop signal came before the last of them."""
    model.eval()
    loss_sum, num_supervised = 0.0, 0
    for row in rows:
        if stop.received:
            return None
        batch = dataset.batch([row])
        loss_sum += model(batch).item()
        num_supervised += batch.num_supervised
    return Evaluation(loss_sum / num_supervised, num_supervised)
