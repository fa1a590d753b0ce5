"""The manifest of a delta: what every byte of base, delta and target must hash to.

Written by `delta` as `vicuna_delta.json` into the delta and, unchanged, as `vicuna_manifest.json` into the model made
from it; read by `delta`, `verify` and `inspect`. Hashes are kept per tensor, so they do not depend on how a checkpoint
is cut into files. A manifest comes from elsewhere: every value is checked before it is used.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import VerificationError, VicunaError
from vicuna.jsonl import write_json
from vicuna.weights.shard import Shard, Tensor, check_shard_name, parse_header

DELTA_MANIFEST, WEIGHTS_NAME = "vicuna_delta.json", "weights.vdelta"
MODEL_MANIFEST = "vicuna_manifest.json"
FORMAT, VERSION = "vicuna exact delta", 1
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".pkl")
LEFT_OUT_SUFFIXES = (*WEIGHT_SUFFIXES, ".safetensors.index.json", ".bin.index.json", ".py", ".tmp")
MAX_MANIFEST_BYTES = 256 << 20


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of the target.

    `base_dtype` is None where the tensor is stored whole: the base has none of that name, shape and kind of number.
    `offset` and `size_bytes` say where its frames lie in the delta's weights file.
    """

    name: str
    base_dtype: str | None
    base_sha256: str | None
    delta_sha256: str
    target_sha256: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class ShardRecord:
    """One safetensors file of the target: name, hash and its header's exact text, from which it is rebuilt."""

    file: str
    sha256: str
    header: str


@dataclass(frozen=True)
class Manifest:
    """All there is to know about a delta. `files` are those copied verbatim (tokenizer, configuration), by hash."""

    tool: str
    template: str | None
    base_vocab_size: int | None
    target_vocab_size: int | None
    shards: tuple[ShardRecord, ...]
    index: str | None
    files: dict[str, str]
    tensors: tuple[TensorRecord, ...]

    def plan(self) -> list[Shard]:
        """The target's files as they are to be written."""
        return [
            Shard(shard.file, shard.header.encode(), parse_header(shard.header.encode(), None, shard.file))
            for shard in self.shards
        ]

    def write(self, path: Path) -> None:
        """Save as JSON, atomically."""
        write_json(path, {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)})


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        VicunaError: there is none, or it is of a newer version.
        VerificationError: it contradicts itself or is not a manifest.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {MAX_MANIFEST_BYTES} bytes")
        value = json.loads(path.read_text("utf-8"))
        if value.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        version = value.pop("version")
        if version == VERSION:
            return _checked(value)
        if type(version) is not int or version < VERSION:
            raise ValueError(f"version {version!r}")
    except FileNotFoundError:
        raise VicunaError(f"{path} does not exist; give the delta or the manifest that came with the model") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, VicunaError) as error:
        raise VerificationError(f"{path} is damaged or no manifest of a delta ({error}); fetch it again") from None
    raise VicunaError(f"{path} has version {version}, this vicuna reads {VERSION}; upgrade vicuna")


def _checked(value: dict[str, Any]) -> Manifest:
    """Build the record from parsed JSON. Raises ValueError, TypeError or KeyError where something is off."""
    manifest = Manifest(
        **{
            **value,
            "shards": tuple(ShardRecord(**shard) for shard in value["shards"]),
            "tensors": tuple(TensorRecord(**tensor) for tensor in value["tensors"]),
        }
    )
    for text in (manifest.tool, *(shard.header for shard in manifest.shards)):
        _check(isinstance(text, str), f"text {text!r}")
    for size in (manifest.base_vocab_size, manifest.target_vocab_size):
        _check(size is None or type(size) is int, f"vocabulary size {size!r}")
    for optional in (manifest.template, manifest.index):
        _check(optional is None or isinstance(optional, str), f"text {optional!r}")
    for name, sha256 in manifest.files.items():
        _check(is_copied_verbatim(name), f"file name {name!r}")
        _check_sha256(sha256)
    planned: list[Tensor] = []
    for shard in manifest.shards:
        check_shard_name(shard.file, "the manifest")
        _check_sha256(shard.sha256)
        planned += parse_header(shard.header.encode(), None, shard.file)
    _check([tensor.name for tensor in planned] == [tensor.name for tensor in manifest.tensors], "order of tensors")
    _check(len({tensor.name for tensor in planned}) == len(planned), "a tensor twice")
    _check(len({shard.file for shard in manifest.shards}) == len(manifest.shards), "a shard twice")
    for tensor in manifest.tensors:
        _check(all(type(n) is int and n >= 0 for n in (tensor.offset, tensor.size_bytes)), f"place of {tensor.name!r}")
        _check((tensor.base_dtype is None) == (tensor.base_sha256 is None), f"base of {tensor.name!r}")
        _check_sha256(tensor.delta_sha256)
        _check_sha256(tensor.target_sha256)
        if tensor.base_sha256 is not None:
            _check_sha256(tensor.base_sha256)
    return manifest


def _check(is_good: bool, what: str) -> None:
    if not is_good:
        raise ValueError(f"bad {what}")


def _check_sha256(value: object) -> None:
    _check(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, f"hash {value!r}")


def is_copied_verbatim(name: object) -> bool:
    """Does a delta carry this file of the target as it is? Weights travel as the delta; code does not travel at all."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,200}", name) is not None
        and not name.lower().endswith(LEFT_OUT_SUFFIXES)
        and name not in (DELTA_MANIFEST, MODEL_MANIFEST)
    )
