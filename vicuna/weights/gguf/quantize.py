"""Converting numbers to GGUF's block types and back.

f32, f16 and bf16 are plain numpy. Blocks are encoded by llama.cpp's own code where the `xllamacpp` package is installed
(its library exports `ggml_quantize_chunk`), else by the `gguf` package's numpy code, which writes the same bytes but
has no K types. `to_gguf` and `from_gguf` call it with a few rows at a time.

Letters: R rows, C columns.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from vicuna.errors import VicunaError, install_command, require
from vicuna.weights.files.numbers import Floats, to_bfloat16, to_float32
from vicuna.weights.gguf.types import GGMLType

K_TYPES = frozenset({GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K})
LARGEST_FLOAT16 = 65504.0
GGML_TYPES = {"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16}

Quantizer = Callable[[Floats, GGMLType], bytes]


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

    def quantize(values: Floats, kind: GGMLType) -> bytes:
        rows, columns = values.shape  # (R, C)
        values = np.ascontiguousarray(values)
        target = np.empty(values.size // kind.block_size * kind.block_bytes, np.uint8)
        size = function(kind.number, values.ctypes.data, target.ctypes.data, 0, rows, columns, None)
        assert size == target.nbytes, f"{kind.name}: {size} bytes instead of {target.nbytes}"
        return target.tobytes()

    return quantize


def numpy_quantizer(values: Floats, kind: GGMLType) -> bytes:
    """The `gguf` package's code."""
    quants = require("gguf.quants", "export")
    data: bytes = np.ascontiguousarray(quants.quantize(values, _gguf_package_type(kind))).tobytes()
    return data


def check_can_make(kinds: set[GGMLType]) -> None:
    """See that these types can be encoded here.

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


def encode(values: Floats, kind: GGMLType, name: str) -> bytes:
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


def decode(data: bytes, kind: GGMLType, columns: int) -> Floats:
    """Bytes of a tensor of this type as numbers: (R, C)."""
    if kind == GGMLType.F32:
        return np.frombuffer(data, "<f4").reshape(-1, columns)
    if kind in (GGMLType.F16, GGMLType.BF16):
        return to_float32(data, kind.name).reshape(-1, columns)
    quants = require("gguf.quants", "export")
    blocks = np.frombuffer(data, np.uint8).reshape(-1, columns // kind.block_size * kind.block_bytes)
    values: Floats = quants.dequantize(blocks, _gguf_package_type(kind)).astype("<f4", copy=False)
    return values.reshape(-1, columns)


def from_float32(values: Floats, dtype: str, name: str) -> bytes:
    """Numbers as a safetensors dtype, rounded to nearest, ties to even.

    Raises:
        VicunaError: a number that float16 cannot hold.
    """
    return encode(values, GGML_TYPES[dtype], name)


def _gguf_package_type(kind: GGMLType) -> Any:
    return require("gguf", "export").GGMLQuantizationType(kind.number)
