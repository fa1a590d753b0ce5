"""The tests' own builders."""

import numpy as np

from tests.weights.builders import to_bytes


def test_bfloat16_of_the_builder() -> None:
    assert to_bytes(np.array([1.0], "<f4"), "BF16") == b"\x80\x3f"
