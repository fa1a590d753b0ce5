"""The number of steps of a run, and the learning rate of each.

Before: `options` and `packing`. After: `loop` takes the learning rate of every step from it.
"""

import math
from dataclasses import dataclass

from vicuna.train.options import TrainOptions


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up to `learning_rate`, then half a cosine down to 0 (Loshchilov and Hutter, arXiv:1608.03983).

    The first step already trains: it has 1 / (warm-up steps + 1) of the peak, not 0.
    """

    learning_rate: float
    num_steps: int
    warmup_steps: int

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_schedule(options: TrainOptions, steps_per_epoch: int) -> CosineSchedule:
    """The schedule of a run over `num_train_epochs` or `max_steps`."""
    num_steps = options.max_steps or max(1, math.ceil(options.num_train_epochs * steps_per_epoch))
    return CosineSchedule(options.learning_rate, num_steps, math.ceil(num_steps * options.warmup_ratio))
