"""Guards of the weights: a loss or gradient that is not finite, and a spike of the loss, stop the run.

Both stop it before the update and name the records, so that the newest checkpoint is from before it.

Before: the losses of a step, in `loop`. After: a person, who looks at the records.
"""

import json
import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import torch

from vicuna.errors import VicunaError
from vicuna.train.batches.dataset import Batch
from vicuna.train.ranks import Ranks

WINDOW = 64
"""Losses of which the median is taken."""
WARM_UP = 16
"""Losses before the first that can be a spike: below, their median says little."""
MIN_SPIKE = 1.0
"""Nats that a spike is at least above the median: near a loss of 0, small differences are large factors."""


class LossGuard:
    """Keeps the losses of the last steps, and finds a spike by their median.

    Args:
        factor: a spike is more than so many times the median; 0 for never.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def is_spike(self, loss: float) -> bool:
        """Whether this loss is a spike above the median of those before it; one that is not is kept."""
        if (
            self.factor
            and len(self._losses) >= WARM_UP
            and loss > max(self.factor * self.median, self.median + MIN_SPIKE)
        ):
            return True
        self._losses.append(loss)
        return False

    @property
    def median(self) -> float:
        """Of the losses kept."""
        return statistics.median(self._losses)


def refuse_not_finite(losses: Sequence[torch.Tensor], batches: Sequence[Batch], step: int, ranks: Ranks) -> NoReturn:
    """Stop because a loss or the gradient of the step is not finite.

    Raises:
        VicunaError: always; the message names the records whose loss is not finite, or all of the step's.
    """
    broken = [batch for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(loss.item())]
    is_loss = ranks.any(bool(broken))
    named = _names(broken if is_loss else batches, ranks)
    _refuse(
        f"the {'loss' if is_loss else 'gradient'} of step {step} is not finite; its records: {named}; "
        "look at them, or lower --learning-rate",
        ranks,
    )


def refuse_spike(
    losses: Sequence[torch.Tensor], batches: Sequence[Batch], step: int, loss: float, guard: LossGuard, ranks: Ranks
) -> NoReturn:
    """Stop because of a spike of the loss.

    Raises:
        VicunaError: always; the message names the records of the micro-batches above the threshold, or all.
    """
    threshold = guard.factor * guard.median
    high = [
        batch
        for batch, total in zip(batches, losses, strict=True)
        if batch.num_supervised and total.item() / batch.num_supervised > threshold
    ]
    named = _names(high if ranks.any(bool(high)) else batches, ranks)
    _refuse(
        f"the loss of step {step} leaps to {loss:.4g}, {loss / max(guard.median, 1e-9):.3g} times the median of the "
        f"steps before it; its records: {named}; look at them, lower --learning-rate, or raise --loss-spike-factor "
        "(0 is never)",
        ranks,
    )


def _names(batches: Sequence[Batch], ranks: Ranks) -> str:
    ids = [record_id for batch in batches for record_id in batch.ids]
    return ", ".join(name for text in ranks.all_gather(json.dumps(ids)) for name in json.loads(text))


def _refuse(message: str, ranks: Ranks) -> NoReturn:
    with ranks.agreed():
        raise VicunaError(message)
    raise AssertionError("agreed() raises on every rank")
