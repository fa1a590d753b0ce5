"""Is this folder a model, or only the difference between two?

A delta loaded as a model answers with gibberish, so serving, training and the delta tools ask here first. A delta that
`vicuna make-delta` wrote has a manifest. Published additive ones (target - base in the same tensors, as FastChat makes
them) look like a model, but their norm weights lie near 0, where a model's lie near 1.
"""

import statistics
import struct
from pathlib import Path
from typing import Literal

from vicuna.errors import VicunaError
from vicuna.io.model_files import read_model_object
from vicuna.weights.files.checkpoint import CheckpointReader, has_weights
from vicuna.weights.files.manifest import CORRECTIONS_NAME, DELTA_MANIFEST, WEIGHTS_NAME
from vicuna.weights.files.tensors import Tensor

Kind = Literal["exact delta", "additive delta", "model"]
LARGEST_DELTA_NORM = 0.1  # single layers of a model can lie lower, so the largest of all layers decides
CENTERED_AT_ZERO = ("gemma", "qwen3_next")  # these models store norm weights minus 1
STRUCT_FORMATS = {"F16": "e", "F32": "f", "F64": "d"}


def kind_of(path: Path | str) -> Kind:
    """What a folder holds, decided by its manifest and a few KiB of its weights.

    Raises:
        VicunaError: it holds neither a delta nor a readable checkpoint.
    """
    path = Path(path)
    if (path / WEIGHTS_NAME).exists():
        return "exact delta"
    if (path / CORRECTIONS_NAME).exists():
        return "additive delta"
    if (path / DELTA_MANIFEST).exists():  # alone: a broken download
        return "exact delta"
    with CheckpointReader(path) as reader:
        norms = [tensor for tensor in reader.tensors.values() if is_norm(tensor)]
        if not norms or _model_type(reader.folder).startswith(CENTERED_AT_ZERO):
            return "model"
        largest = max(statistics.fmean(map(abs, floats(tensor, reader.read(tensor.name)))) for tensor in norms)
    return "additive delta" if largest < LARGEST_DELTA_NORM else "model"


def has_manifest(path: Path | str) -> bool:
    """Is this a delta that `vicuna make-delta` wrote, or an incomplete copy of one?"""
    return any((Path(path) / name).exists() for name in (DELTA_MANIFEST, WEIGHTS_NAME, CORRECTIONS_NAME))


def is_delta(path: Path | str) -> bool:
    """Is this a delta? A folder without a checkpoint (another kind of model, a hub name) is not."""
    path = Path(path)
    return (has_manifest(path) or has_weights(path)) and kind_of(path) != "model"


def refuse_delta(path: Path | str) -> None:
    """See that a folder is not a delta.

    Raises:
        VicunaError: it is; the message says how to make the model of it.
    """
    if is_delta(path):
        raise VicunaError(
            f"{path} is a delta, not a model; make the model first: "
            f"vicuna apply-delta --base BASE --delta {path} --target MODEL"
        )


def is_norm(tensor: Tensor) -> bool:
    """Is it a layer norm's weight?"""
    return len(tensor.shape) == 1 and tensor.shape[0] > 0 and tensor.name.endswith("norm.weight")


def floats(tensor: Tensor, data: bytes) -> tuple[float, ...]:
    """The numbers of a tensor with one dimension, without numpy."""
    if tensor.dtype == "BF16":
        wide = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        return struct.unpack(f"<{len(data) // 2}f", wide)
    if tensor.dtype not in STRUCT_FORMATS:
        return (1.0,)  # quantised norms: no additive delta is published so
    return struct.unpack(f"<{tensor.shape[0]}{STRUCT_FORMATS[tensor.dtype]}", data)


def _model_type(folder: Path) -> str:
    try:
        return str(read_model_object(folder / "config.json")["model_type"])
    except (OSError, VicunaError, KeyError):
        return ""
