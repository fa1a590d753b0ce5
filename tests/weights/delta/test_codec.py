"""Frames of an exact delta: any bit patterns come back, and damage is an error."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.builders import random_bits
from vicuna.weights.delta.codec import decode_frame, encode_frame
from vicuna.weights.files.numbers import cast
from vicuna.weights.files.tensors import FLOATS


@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_a_frame_of_any_bit_patterns_comes_back(dtype: str, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    base, target = random_bits(random, dtype, count), random_bits(random, dtype, count)
    for given_base in (base, None, target):
        kind, payload = encode_frame(target, given_base, dtype)
        assert decode_frame(kind, payload, given_base, dtype, len(target)) == target


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_damaged_frame_is_an_error_or_other_numbers(dtype: str) -> None:
    """Never another exception, whatever the bytes are: frames are decoded before their hash is known."""
    random = np.random.default_rng(9)
    base = random.normal(0, 0.02, 1000).astype("<f4")
    target = cast((base + random.normal(0, 1e-5, 1000).astype("<f4")).tobytes(), "F32", dtype)
    kind, payload = encode_frame(target, base_data := cast(base.tobytes(), "F32", dtype), dtype)
    for _ in range(300):
        bad = bytearray(payload)
        for place in random.integers(0, min(len(bad), 30), 2):
            bad[place] ^= int(random.integers(0, 256))
        with contextlib.suppress(ValueError):
            decoded = decode_frame(kind, bytes(bad[: random.integers(0, 2 * len(bad))]), base_data, dtype, len(target))
            assert len(decoded) == len(target)


def test_neighbouring_numbers_have_small_differences() -> None:
    """A last-bit change costs next to nothing, also across zero."""
    base = np.zeros(10_000, "<f2")
    target = np.resize(np.array([-5.96e-08, 0.0, 5.96e-08], "<f2"), 10_000)
    _, payload = encode_frame(target.tobytes(), base.tobytes(), "F16")
    assert len(payload) < 200
