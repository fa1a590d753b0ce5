"""Intervals that hold what they promise, on simulated questions."""

import numpy as np
import pytest

from vicuna.statistics import intervals
from vicuna.statistics.intervals import estimate_difference, estimate_mean, student_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [(0.975, 4, 2.7764), (0.975, 9, 2.2622), (0.975, 79, 1.9905), (0.995, 7, 3.4995), (0.9995, 23, 3.7676)],
)
def test_student_quantile(probability: float, freedom: int, value: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(value, rel=0.01)  # values of the printed tables


def test_known_difference_is_recovered() -> None:
    generator = np.random.default_rng(0)
    hardness = generator.normal(6, 2, size=80)  # shared by both models, so it must drop out
    gaps = (hardness + 0.8 + generator.normal(0, 1, 80)) - (hardness + generator.normal(0, 1, 80))
    found = estimate_difference(list(gaps), bounds=(-9, 9))
    assert found.estimate.low is not None and found.estimate.high is not None
    assert found.estimate.low < 0.8 < found.estimate.high
    assert found.is_distinguishable
    assert found.smallest_detectable == pytest.approx(2.80 * 2**0.5 / 80**0.5, rel=0.2)


def test_no_difference_is_not_distinguishable() -> None:
    gaps = list(np.random.default_rng(1).normal(0, 1, 40))
    found = estimate_difference(gaps, bounds=(-9, 9))
    assert not found.is_distinguishable and found.smallest_detectable


@pytest.mark.parametrize("num_questions", [12, 40])
def test_coverage(num_questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 2000)
    generator, chances, runs = np.random.default_rng(2), (0.2, 0.3, 0.5), 300
    truth, covered = 0.3 * 0.5 + 0.5, 0
    for _ in range(runs):
        values = generator.choice([0.0, 0.5, 1.0], size=num_questions, p=chances)
        found = estimate_mean(list(values), bounds=(0, 1))
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / runs <= 0.99


def test_the_question_is_the_unit() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.5]
    once = estimate_mean(values, bounds=(0, 1))
    again = estimate_mean(values, bounds=(0, 1))
    assert once == again, "seeded"
    assert once.num_questions == 8


def test_equal_values_leave_room_for_the_unseen() -> None:
    found = estimate_mean([1.0] * 8, bounds=(0, 1))
    assert found.low == pytest.approx(0.025 ** (1 / 8)) and found.high == 1.0  # Clopper-Pearson for 8 of 8
    assert not estimate_difference([0.0] * 8, bounds=(-1, 1)).is_distinguishable
    assert estimate_difference([0.0] * 8, bounds=(-1, 1)).smallest_detectable is None


def test_too_few_questions_have_no_interval() -> None:
    found = estimate_difference([1.0, 0.9, 1.1, 1.0], bounds=(-9, 9))
    assert found.estimate.low is None and not found.is_distinguishable


def test_many_comparisons_widen_each() -> None:
    gaps = list(np.random.default_rng(3).normal(0.3, 1, 40))
    one, ten = (estimate_difference(gaps, bounds=(-9, 9), num_comparisons=n).estimate for n in (1, 10))
    assert one.low is not None and ten.low is not None and ten.low < one.low


@pytest.mark.parametrize("num_questions", [7, 150, 3000])
def test_blocks_and_their_order_change_no_bit(num_questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(3).choice([0.0, 1 / 3, 0.5, 2 / 3, 1.0], num_questions))
    found = estimate_mean(values, bounds=(0, 1))
    for size in (1, 999, 1 << 22):
        monkeypatch.setattr(intervals, "BLOCK_COUNTS", size * 10)
        intervals._drawn_questions.cache_clear()
        assert estimate_mean(values, bounds=(0, 1)) == found
    if num_questions > intervals.MAX_DRAWN_ONE_BY_ONE:
        assert estimate_mean(values[::-1], bounds=(0, 1)) == found


def test_drawing_values_gives_what_drawing_questions_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(4).integers(1, 11, 400).astype(float))
    by_value = estimate_mean(values, bounds=(1, 10))
    monkeypatch.setattr(intervals, "MAX_DRAWN_ONE_BY_ONE", 400)
    by_question = estimate_mean(values, bounds=(1, 10))
    assert by_value.low and by_value.high and by_question.low and by_question.high
    # Five of the standard deviations that the module states, for the difference of two draws.
    margin = 5 * 2**0.5 * 0.007 * (by_question.high - by_question.low)
    assert by_value.low == pytest.approx(by_question.low, abs=margin)
    assert by_value.high == pytest.approx(by_question.high, abs=margin)


def test_counts_are_held_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    draw = np.random.default_rng

    class Counted:
        def __init__(self, seed: int) -> None:
            self._generator = draw(seed)

        def multinomial(self, n: int, shares: np.ndarray, size: int) -> np.ndarray:
            sizes.append(size * len(shares))
            return self._generator.multinomial(n, shares, size=size)

    monkeypatch.setattr(np.random, "default_rng", Counted)
    intervals._drawn_questions.cache_clear()
    for num_questions in (200, 1280, 20_480):
        sizes.clear()
        values = list(draw(5).choice([0.0, 0.25, 0.5, 1.0], num_questions))
        estimate_mean(values, bounds=(0, 1))
        assert max(sizes) <= intervals.BLOCK_COUNTS
        assert num_questions <= intervals.MAX_DRAWN_ONE_BY_ONE or sum(sizes) == 4 * intervals.NUM_RESAMPLES
