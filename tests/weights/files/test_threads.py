"""The map on threads: results in order, and never more than a few items ahead."""

import threading
from collections.abc import Iterator

import pytest

from vicuna.weights.files.threads import NUM_THREADS, map_in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    is_first_done = threading.Event()

    def double(item: int) -> int:
        if item:
            is_first_done.set()
        elif NUM_THREADS > 1:
            assert is_first_done.wait(30)  # the first item ends after the second
        return 2 * item

    assert list(map_in_threads(double, range(20))) == [2 * item for item in range(20)]


def test_items_are_taken_as_results_are_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = map_in_threads(lambda item: item, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= NUM_THREADS + 3


def test_an_error_reaches_the_caller() -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = map_in_threads(fail, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
