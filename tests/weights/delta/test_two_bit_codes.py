"""Small differences, four to a byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vicuna.weights.delta.two_bit_codes import pack, packed_bytes, unpack


@pytest.mark.parametrize("width", [2, 4])
@given(values=st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**16 - 1)), max_size=50))
def test_differences_come_back(width: int, values: list[int]) -> None:
    folded = np.array(values, f"<u{width}")
    data = pack(folded)
    assert len(data) == packed_bytes(len(values)) + width * sum(value >= 3 for value in values)
    assert unpack(data, len(values), width).tolist() == values


def test_small_ones_take_two_bits() -> None:
    assert len(pack(np.array([0, 1, 2] * 400, "<u2"))) == 300


def test_data_of_another_size_is_an_error() -> None:
    data = bytes(pack(np.array([0, 1, 2, 500], "<u2")))
    for damaged in (data[:-1], data + b"x", data[:1]):
        with pytest.raises(ValueError, match="another size"):
            unpack(damaged, 4, 2)
