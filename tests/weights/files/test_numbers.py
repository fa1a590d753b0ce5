"""Casts between number formats: PyTorch's numbers, and NaNs that stay NaNs."""

import numpy as np
import pytest

from tests.weights.builders import random_bits
from vicuna.weights.files.numbers import QUIET_NANS, cast, to_bfloat16


@pytest.mark.parametrize(("source", "target"), [("F32", "F16"), ("F32", "BF16"), ("F16", "F32"), ("BF16", "F16")])
def test_cast_is_torchs(source: str, target: str) -> None:
    torch = pytest.importorskip("torch")
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    data = random_bits(np.random.default_rng(3), source, 2000)
    expected = torch.frombuffer(bytearray(data), dtype=kinds[source]).to(kinds[target])
    ours = torch.frombuffer(bytearray(cast(data, source, target)), dtype=kinds[target])
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours[~ours.isnan()], expected[~expected.isnan()])


def test_bfloat16_keeps_what_is_no_number() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 1e-40], "<f4")
    bits = np.frombuffer(to_bfloat16(values), "<u2")
    back = (bits.astype("<u4") << 16).view("<f4")
    assert np.isnan(back[1]) and back[2] == np.inf and back[3] == -np.inf and np.signbit(back[4])
    quiet = np.array([0x7F800001], "<u4").view("<f4")  # would become infinite if its low bits were cut off
    assert np.isnan((np.frombuffer(to_bfloat16(quiet), "<u2").astype("<u4") << 16).view("<f4"))


@pytest.mark.parametrize("target", ["F16", "BF16"])
def test_a_cast_nan_is_the_quiet_one_of_its_sign(target: str) -> None:
    data = np.array([0x7F800001, 0xFF800001], "<u4").tobytes()  # signalling, of either sign
    found = np.frombuffer(cast(data, "F32", target), "<u2").tolist()
    assert found == [QUIET_NANS[target], QUIET_NANS[target] | 0x8000]
