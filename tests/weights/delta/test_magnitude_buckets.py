"""Buckets of differences by the magnitude of the base's weight."""

import numpy as np
import pytest

from vicuna.weights.delta.bits import BLOCK, as_bits
from vicuna.weights.delta.magnitude_buckets import (
    MAX_BOUNDARIES,
    choose_boundaries,
    exponents_of,
    restore_order,
    sort_into_buckets,
)


@pytest.mark.parametrize(("dtype", "bias", "bits"), [("F16", 15, "<f2"), ("F32", 127, "<f4")])
def test_exponents_are_those_of_the_format(dtype: str, bias: int, bits: str) -> None:
    values = np.array([1.0, -1.0, 0.5, 3.0, 0.0, np.inf], bits)
    expected = [bias, bias, bias - 1, bias + 1, 0, 2 * bias + 1]
    assert exponents_of(as_bits(values.tobytes(), dtype), dtype).tolist() == expected


def test_exponents_of_bfloat16() -> None:
    bits = (np.array([1.0, -4.0], "<f4").view("<u4") >> 16).astype("<u2")
    assert exponents_of(bits, "BF16").tolist() == [127, 129]


def test_boundaries_are_where_the_differences_change() -> None:
    random = np.random.default_rng(0)
    exponents = random.integers(100, 120, 50_000).astype("u1")
    folded = np.where(exponents < 105, random.integers(0, 200, 50_000), 0)
    folded = np.where(exponents >= 113, random.integers(0, 3, 50_000), folded).astype("<u2")
    assert choose_boundaries(exponents, folded) == [105, 113]


def test_equal_differences_need_no_boundary() -> None:
    random = np.random.default_rng(0)
    exponents = random.integers(100, 120, 50_000).astype("u1")
    assert choose_boundaries(exponents, random.integers(0, 3, 50_000).astype("<u2")) == []
    assert choose_boundaries(np.zeros(0, "u1"), np.zeros(0, "<u2")) == []


@pytest.mark.parametrize("boundaries", [[], [7], [3, 200]])
def test_the_order_comes_back(boundaries: list[int]) -> None:
    assert len(boundaries) <= MAX_BOUNDARIES
    random = np.random.default_rng(1)
    exponents = random.integers(0, 256, 2 * BLOCK + 11).astype("u1")
    folded = np.arange(len(exponents), dtype="<u4")
    bucketed = sort_into_buckets(folded, exponents, boundaries)
    buckets = np.searchsorted(boundaries, exponents, side="right")
    assert bucketed.tolist() == np.argsort(buckets, kind="stable").tolist()
    assert (restore_order(bucketed, exponents, boundaries) == folded).all()
