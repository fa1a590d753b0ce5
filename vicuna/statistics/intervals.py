"""Means and paired differences over questions, with seeded bootstrap intervals. numpy only.

The sampling unit is the question, since another evaluation would draw other questions: all verdicts on a question
(orders, repeats, judges) are one value here and are resampled together. Resampling verdicts instead would make the
intervals too narrow.

A resample's mean depends only on how often each different value is drawn, and verdicts have few different ones. So
above `MAX_DRAWN_ONE_BY_ONE` questions the values are drawn instead of the questions: the same distribution, at a cost
that does not grow with the questions. Resamples are drawn in blocks, from one stream, and added up in whole numbers:
neither the size of a block nor the processor's order of adding changes a figure. An end of a 95% interval has a Monte
Carlo error (standard deviation over seeds) of 0.7% of the interval's width.

Shapes: Q questions, K different values, R bootstrap resamples.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

NUM_RESAMPLES = 10_000
SEED = 20230330
LEVEL = 0.95
POWER = 0.8
# Questions up to which each is drawn for itself; above, the number of times that each value is drawn.
MAX_DRAWN_ONE_BY_ONE = 200
# Counts that are held at a time: 8 bytes each.
BLOCK_COUNTS = 1 << 20
# Below this the spread seen among the questions says too little about the spread among others.
MIN_QUESTIONS = 5


@dataclass(frozen=True)
class Estimate:
    """A mean over `num_questions` questions and its interval; no interval where there are too few of them."""

    mean: float
    low: float | None
    high: float | None
    num_questions: int


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences. `smallest_detectable` is None where nothing varies or no interval is given."""

    estimate: Estimate
    smallest_detectable: float | None

    @property
    def is_distinguishable(self) -> bool:
        """Whether the interval leaves zero out."""
        low, high = self.estimate.low, self.estimate.high
        return low is not None and high is not None and (low > 0 or high < 0)


def estimate_mean(
    values: Sequence[float], *, bounds: tuple[float, float], level: float = LEVEL, seed: int = SEED
) -> Estimate:
    """The mean of one value per question (Q,), with a seeded bootstrap interval over questions.

    The percentiles are taken further out than `level` asks, by the factor sqrt(Q/(Q-1)) and with Student's t for the
    normal, because the plain percentile interval is too short for few questions (Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69, 2015, section 5.3). If all values are the same the
    bootstrap sees no spread at all; then the interval covers what up to a share p of other questions could change,
    p being the upper Clopper-Pearson limit for none seen in Q (Biometrika 26, 1934). In simulations with wins, ties and
    losses of three kinds the 95% interval held the truth in 91% to 99% of the runs with 5 to 20 questions, and in 93%
    to 95% with 40.

    Args:
        bounds: the least and the largest value that a question can have.
    """
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    assert count > 0
    mean = math.fsum(values) / count
    if count < MIN_QUESTIONS:
        return Estimate(mean, None, None, count)
    tail = (1 - level) / 2
    if float(np.ptp(array)) == 0.0:
        unseen = 1 - tail ** (1 / count)
        return Estimate(mean, mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean), count)
    wider = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_quantile(1 - tail, count - 1))
    low, high = np.quantile(_resampled_means(array, seed), [wider, 1 - wider])
    return Estimate(mean, max(float(low), bounds[0]), min(float(high), bounds[1]), count)


def estimate_difference(
    differences: Sequence[float], *, bounds: tuple[float, float], num_comparisons: int = 1, seed: int = SEED
) -> Difference:
    """The mean of paired differences, one per question (Q,), at a level shared among `num_comparisons` (Bonferroni).

    The smallest difference that Q such questions would show four times in five is (z_level + z_power) * s / sqrt(Q)
    (Miller, "Adding Error Bars to Evals", 2024, arXiv:2411.00640, section 5).
    """
    level = 1 - (1 - LEVEL) / num_comparisons
    estimate = estimate_mean(differences, bounds=bounds, level=level, seed=seed)
    spread = float(np.std(differences, ddof=1)) if estimate.low is not None else 0.0
    normal = NormalDist()
    needed = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(POWER)
    detectable = needed * spread / math.sqrt(estimate.num_questions)
    return Difference(estimate, detectable or None)


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t with `freedom` degrees of freedom, by its expansion about the normal.

    Within 1% of the true value from 4 degrees of freedom on, for the levels used here. From Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.5.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / float(freedom**power) for power, term in enumerate(terms, 1))


def _resampled_means(array: np.ndarray, seed: int) -> np.ndarray:
    """Means of R resamples of the questions, (R,)."""
    total = len(array)
    # Whole numbers, small enough that every partial sum is exact in float64, in whichever order it is taken.
    scale = 2.0 ** (52 - math.frexp(float(np.abs(array).max()) * total)[1])
    if total <= MAX_DRAWN_ONE_BY_ONE:
        sums = _drawn_questions(total, NUM_RESAMPLES, seed).astype(np.float64) @ np.rint(array * scale)
    else:
        values, times = np.unique(array, return_counts=True)
        counts = _blocks(np.random.default_rng(seed), total, times / total, NUM_RESAMPLES)
        sums = np.concatenate([block.astype(np.float64) @ np.rint(values * scale) for block in counts])
    return np.asarray(sums / scale / total)


@functools.lru_cache(maxsize=4)
def _drawn_questions(total: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each question is drawn, (R, Q): one draw for all models, categories and pairs of so many questions."""
    shares = np.full(total, 1 / total)
    return np.concatenate(
        [block.astype(np.uint8) for block in _blocks(np.random.default_rng(seed), total, shares, num_resamples)]
    )


def _blocks(generator: np.random.Generator, total: int, shares: np.ndarray, num_resamples: int) -> Iterator[np.ndarray]:
    """How often each value is drawn, in blocks of resamples, (block, K): it says all that `total` indices would."""
    size = max(1, BLOCK_COUNTS // len(shares))
    for start in range(0, num_resamples, size):
        yield generator.multinomial(total, shares, size=min(size, num_resamples - start))
