"""Cosine with warm-up, at values worked out by hand."""

import pytest

from vicuna.train.optim.schedule import CosineSchedule, make_schedule
from vicuna.train.options import TrainOptions


def test_values() -> None:
    schedule = CosineSchedule(learning_rate=1.0, num_steps=12, warmup_steps=2)
    expected = {0: 1 / 3, 1: 2 / 3, 2: 1.0, 7: 0.5, 11: 0.024472}
    assert {step: schedule.at(step) for step in expected} == pytest.approx(expected, abs=1e-6)


def test_it_rises_then_falls_and_never_stands_at_zero() -> None:
    schedule = CosineSchedule(2e-5, 100, 3)
    rates = [schedule.at(step) for step in range(100)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert max(rates) == 2e-5
    assert min(rates) > 0


@pytest.mark.parametrize(
    ("changes", "steps", "warmup"),
    [
        ({"num_train_epochs": 3.0}, 30, 1),
        ({"num_train_epochs": 0.25}, 3, 1),
        ({"num_train_epochs": 1e-9}, 1, 1),
        ({"max_steps": 1000}, 1000, 30),
        ({"max_steps": 50, "warmup_ratio": 0.0}, 50, 0),
    ],
)
def test_length_of_a_run(make_options, changes: dict[str, float], steps: int, warmup: int) -> None:  # type: ignore[no-untyped-def]
    options: TrainOptions = make_options(**({"max_steps": None} | changes))
    schedule = make_schedule(options, steps_per_epoch=10)
    assert (schedule.num_steps, schedule.warmup_steps) == (steps, warmup)
