"""What must not reach the weights: a loss or gradient that is not finite, and a loss that leaps.

Both stop the run before the update and name the records, so the newest checkpoint is from before it.

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
"""Losses that the median is taken of."""
WARM_UP = 16
"""Steps after a start in which nothing is called a leap: there is no median yet."""
LEAST_LEAP = 1.0
"""Nats above the median that a leap has at least: where nearly nothing is left to learn, small differences are large
factors."""


class LossGuard:
    """Remembers the losses of the last steps, and knows one that does not belong to them.

    Args:
        factor: how many times the median a loss must be; 0 for never.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def is_leap(self, loss: float) -> bool:
        """Whether this loss leaps above the median of those before it; if not, it is one of them from now on."""
        if (
            self.factor
            and len(self._losses) >= WARM_UP
            and loss > max(self.factor * self.median, self.median + LEAST_LEAP)
        ):
            return True
        self._losses.append(loss)
        return False

    @property
    def median(self) -> float:
        """Of the losses remembered."""
        return statistics.median(self._losses)


def refuse_broken(losses: Sequence[torch.Tensor], batches: Sequence[Batch], step: int, ranks: Ranks) -> NoReturn:
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


def refuse_leap(
    losses: Sequence[torch.Tensor], batches: Sequence[Batch], step: int, loss: float, guard: LossGuard, ranks: Ranks
) -> NoReturn:
    """Stop because the loss of the step leaps.

    Raises:
        VicunaError: always; the message names the records of the micro-batches above the leap's threshold, or all.
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
    return ", ".join(name for said in ranks.exchange(json.dumps(ids)) for name in json.loads(said))


def _refuse(message: str, ranks: Ranks) -> NoReturn:
    with ranks.agreed():
        raise VicunaError(message)
    raise AssertionError("agreed() raises on every rank")
