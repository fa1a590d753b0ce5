"""Encoding numbers: llama.cpp's bytes, and numbers that a type cannot hold."""

import math

import numpy as np
import pytest

from vicuna.errors import VicunaError
from vicuna.weights.gguf.quantize import encode, native_quantizer, numpy_quantizer
from vicuna.weights.gguf.types import GGMLType


@pytest.mark.parametrize("kind", [GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q8_0])
def test_numpy_makes_the_bytes_that_llama_cpp_makes(kind: GGMLType) -> None:
    quantizer = native_quantizer()
    assert quantizer is not None
    random = np.random.default_rng(1)
    values = (random.normal(size=(64, 256)) * np.exp(random.normal(size=(64, 1)) * 3)).astype("<f4")
    values[0] = 0
    values[1, ::2] = -0.0
    assert quantizer(values, kind) == numpy_quantizer(values, kind)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (math.nan, GGMLType.Q8_0, "tensor a has NaN or infinite numbers, which q8_0"),
        (math.inf, GGMLType.Q4_K, "tensor a has NaN or infinite numbers, which q4_k"),
        (1e9, GGMLType.Q4_0, "tensor a has numbers above 65504, which q4_0"),
        (1e6, GGMLType.F16, "tensor a has numbers above 65504, which f16"),
    ],
)
def test_numbers_that_a_type_cannot_hold(value: float, kind: GGMLType, said: str) -> None:
    values = np.ones((2, 256), "<f4")
    values[1, 7] = value
    with pytest.raises(VicunaError, match=said):
        encode(values, kind, "a")
    for holds in (GGMLType.F32, GGMLType.BF16):
        assert encode(values, holds, "a")
