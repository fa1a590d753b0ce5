"""Bit patterns as integers: in the numbers' order, folded, as planes."""

import numpy as np
import pytest

from tests.weights.builders import random_bits
from vicuna.weights.delta.bits import (
    BLOCK,
    add_folded,
    as_bits,
    fold,
    from_ordered,
    from_planes,
    subtract_folded,
    to_ordered,
    to_planes,
    unfold,
)
from vicuna.weights.files.tensors import FLOATS


def test_ordered_integers_are_in_the_order_of_the_numbers() -> None:
    values = np.array([-np.inf, -2.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, 1.0000001, np.inf], "<f4")
    ordered = to_ordered(as_bits(values.tobytes(), "F32"))
    assert (np.diff(ordered.astype("<i8")) > 0).all()
    assert from_ordered(ordered).tobytes() == values.tobytes()


def test_small_differences_of_either_sign_fold_to_small_integers() -> None:
    differences = np.array([0, -1, 1, -2, 2, 2**15 - 1, -(2**15)], "<i2").view("<u2")
    assert fold(differences).tolist() == [0, 1, 2, 3, 4, 2**16 - 2, 2**16 - 1]
    assert unfold(fold(differences)).tolist() == differences.tolist()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [0, 1, BLOCK + 3])
def test_differences_and_planes_come_back(dtype: str, count: int) -> None:
    random = np.random.default_rng(count)
    base, target = (as_bits(random_bits(random, dtype, count), dtype) for _ in range(2))
    folded = subtract_folded(target, base)
    planes = to_planes(folded)
    assert len(planes) == folded.nbytes
    assert (from_planes(planes, folded.itemsize) == folded).all()
    assert (add_folded(base, folded) == target).all()


def test_planes_are_lowest_bytes_first() -> None:
    assert bytes(to_planes(np.array([0x0102, 0x0304], "<u2"))) == b"\x02\x04\x01\x03"
