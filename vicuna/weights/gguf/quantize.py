"""Numbers into GGUF's blocks and back.

f32, f16 and bf16 are plain numpy. Blocks are made by llama.cpp's own code where the `xllamacpp` package is installed
(its library exports `ggml_quantize_chunk`), and by the `gguf` package's numpy code else, which writes the same bytes
but does not know the K types. Comes after `types`; `export` and `convert` call it with a few rows at a time.

Letters: R rows, C columns.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.errors import VicunaError, install_command, require
from vicuna.weights.gguf.types import GGMLType

K_TYPES = frozenset({GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K})
LARGEST_FLOAT16 = 65504.0
# How safetensors' dtypes lie in memory; bfloat16, which numpy lacks, as its bits.
NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SAME_IN_GGUF = {"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16}

Quantizer = Callable[[NDArray[np.float32], GGMLType], bytes]


@functools.cache
def native_quantizer() -> Quantizer | None:
    """llama.cpp's code, or None where `xllamacpp` is not installed (or its library hides the function)."""
    try:
        module = require("xllamacpp.xllamacpp", "export")
        function = ctypes.CDLL(module.__file__).ggml_quantize_chunk
    except (VicunaError, ImportError, OSError, AttributeError):
        return None
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def quantize(values: NDArray[np.float32], kind: GGMLType) -> bytes:
        rows, columns = values.shape  # (R, C)
        values = np.ascontiguousarray(values)
        target = np.empty(values.size // kind.block_size * kind.block_bytes, np.uint8)
        size = function(kind.number, values.ctypes.data, target.ctypes.data, 0, rows, columns, None)
        assert size == target.nbytes, f"{kind.name}: {size} bytes instead of {target.nbytes}"
        return target.tobytes()

    return quantize


def numpy_quantizer(values: NDArray[np.float32], kind: GGMLType) -> bytes:
    """The `gguf` package's code."""
    quants = require("gguf.quants", "export")
    data: bytes = np.ascontiguousarray(quants.quantize(values, _their_type(kind))).tobytes()
    return data


def check_can_make(kinds: set[GGMLType]) -> None:
    """See, before anything is written, that there is code for these types.

    Raises:
        VicunaError: a K type is among them and `xllamacpp` is missing, or `gguf` is.
    """
    if native_quantizer() is not None or not any(kind.is_quantized for kind in kinds):
        return
    require("gguf", "export")
    if missing := sorted(kind.name.lower() for kind in kinds & K_TYPES):
        raise VicunaError(
            f"{', '.join(missing)} needs llama.cpp's code, and xllamacpp is not installed: "
            f"{install_command('export')}; where it has no wheel for your system, --type q8_0 does without"
        )


def encode(values: NDArray[np.float32], kind: GGMLType, name: str) -> bytes:
    """Rows of numbers as a tensor of this type.

    Args:
        values: (R, C) or (C,).
        name: the tensor's, for messages.

    Raises:
        VicunaError: a number that this type cannot hold.
    """
    if kind == GGMLType.F32:
        return values.astype("<f4", copy=False).tobytes()
    if kind == GGMLType.BF16:
        return to_bfloat16(values)
    largest = float(np.max(np.abs(values), initial=0.0))
    if kind == GGMLType.F16:
        if largest > LARGEST_FLOAT16 and np.isfinite(values[np.abs(values) > LARGEST_FLOAT16]).any():
            raise VicunaError(f"tensor {name} has numbers above {LARGEST_FLOAT16:.0f}, which f16 cannot hold; use bf16")
        return values.astype("<f2").tobytes()
    if not largest <= LARGEST_FLOAT16:  # the scale of a block is an f16, and a NaN would spoil its whole block
        what = f"numbers above {LARGEST_FLOAT16:.0f}" if np.isfinite(values).all() else "NaN or infinite numbers"
        raise VicunaError(
            f"tensor {name} has {what}, which {kind.name.lower()} cannot hold; repair the model or use --type bf16"
        )
    return (native_quantizer() or numpy_quantizer)(values, kind)


def decode(data: bytes, kind: GGMLType, columns: int) -> NDArray[np.float32]:
    """Bytes of a tensor of this type as numbers: (R, C)."""
    if kind == GGMLType.F32:
        return np.frombuffer(data, "<f4").reshape(-1, columns)
    if kind in (GGMLType.F16, GGMLType.BF16):
        return to_float32(data, kind.name).reshape(-1, columns)
    quants = require("gguf.quants", "export")
    blocks = np.frombuffer(data, np.uint8).reshape(-1, columns // kind.block_size * kind.block_bytes)
    values: NDArray[np.float32] = quants.dequantize(blocks, _their_type(kind)).astype("<f4", copy=False)
    return values.reshape(-1, columns)


def to_float32(data: bytes, dtype: str) -> NDArray[np.float32]:
    """The numbers of a safetensors dtype, in one dimension."""
    values = np.frombuffer(data, NUMPY_DTYPES[dtype])
    if dtype == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4")


def from_float32(values: NDArray[np.float32], dtype: str, name: str) -> bytes:
    """Numbers as a safetensors dtype, rounded to nearest, ties to even.

    Raises:
        VicunaError: a number that float16 cannot hold.
    """
    return encode(values, SAME_IN_GGUF[dtype], name)


def to_bfloat16(values: NDArray[np.float32]) -> bytes:
    """Little-endian bfloat16 bytes, rounded to nearest, ties to even; what is not a number stays so."""
    bits = values.astype("<f4", copy=False).reshape(-1).view("<u4")
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    if np.isnan(values).any():
        rounded = np.where(np.isnan(values.reshape(-1)), bits | 0x400000, rounded)
    data: bytes = (rounded >> 16).astype("<u2").tobytes()
    return data


def _their_type(kind: GGMLType) -> Any:
    return require("gguf", "export").GGMLQuantizationType(kind.number)
