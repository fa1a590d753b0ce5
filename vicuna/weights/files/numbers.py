"""The floating point formats of weights: their names, and conversions that give the same bits on every machine.

A dtype is named as in a safetensors header (F16, BF16, F32, F64). numpy has no bfloat16: its numbers are handled as
their 16 bits, the upper half of an fp32 number.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

TorchName = Literal["float32", "float16", "bfloat16"]
DTYPES: dict[TorchName, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # by the name in config.json
TORCH_NAMES = {dtype: name for name, dtype in DTYPES.items()}
NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
QUIET_NANS = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000}  # bit patterns

Floats = NDArray[np.float32]


def to_float32(data: bytes, dtype: str) -> Floats:
    """The numbers of F16, BF16 or F32 bytes, exactly, in one dimension."""
    values = np.frombuffer(data, NUMPY_DTYPES[dtype])
    if dtype == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4", copy=False)


def to_bfloat16(values: Floats) -> bytes:
    """BF16 bytes, rounded to nearest, ties to even. A NaN keeps its sign and the upper bits of its payload."""
    values = values.astype("<f4", copy=False).reshape(-1)
    rounded = _rounded_to_bfloat16(values)
    if np.isnan(values).any():  # rounding can carry a NaN's payload into its exponent
        rounded = np.where(np.isnan(values), (values.view("<u4") | 0x400000) >> 16, rounded)
    data: bytes = rounded.astype("<u2").tobytes()
    return data


def cast(data: bytes, source: str, target: str) -> bytes:
    """Numbers of dtype `source` (F16, BF16, F32 or F64) in dtype `target` (F16, BF16 or F32).

    Rounds to nearest, ties to even; what is too large becomes infinity. Every NaN becomes the quiet NaN of its sign,
    because processors differ in what else of a NaN a conversion keeps.
    """
    if source == target:
        return data
    numbers = np.frombuffer(data, "<f8") if source == "F64" else to_float32(data, source)
    with np.errstate(over="ignore", invalid="ignore"):
        if target == "BF16":
            bits = _rounded_to_bfloat16(numbers.astype("<f4")).astype("<u2")
        elif target == "F16":
            bits = numbers.astype("<f2").view("<u2")
        else:
            bits = numbers.astype("<f4").view("<u4")
    sign = np.signbit(numbers).astype(bits.dtype) << (8 * bits.itemsize - 1)
    result: bytes = np.where(np.isnan(numbers), QUIET_NANS[target] | sign, bits).astype(bits.dtype).tobytes()
    return result


def _rounded_to_bfloat16(values: Floats) -> NDArray[np.uint32]:
    """The upper 16 bits of fp32 numbers, rounded to nearest, ties to even; NaNs are not treated apart."""
    bits = values.view("<u4")
    rounded: NDArray[np.uint32] = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return rounded
