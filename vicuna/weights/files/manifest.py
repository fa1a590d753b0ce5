"""The manifest of a delta or a model: the hashes of base, delta and target, tensor by tensor.

`make_delta` writes it as `vicuna_delta.json` into the delta, and `apply_delta`, unchanged, as `vicuna_manifest.json`
into the model made from it; models made otherwise (cast, merged) have one with their own hashes only. Hashes are kept
per tensor, so they do not depend on how a checkpoint is split into files. A manifest may come from anybody: every
value is checked before it is used.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vicuna.errors import VerificationError, VicunaError
from vicuna.io.files import atomic_file
from vicuna.io.jsonl import JsonObject, format_json
from vicuna.io.model_files import parse_model_json, read_model_bytes
from vicuna.io.terminal import printable
from vicuna.weights.files.tensors import FLOATS, Shard, Tensor, check_shard_name, parse_header

DELTA_MANIFEST, MODEL_MANIFEST, SUMS_NAME = "vicuna_delta.json", "vicuna_manifest.json", "SHA256SUMS"
WEIGHTS_NAME, CORRECTIONS_NAME = "weights.vdelta", "corrections.vdelta"
OUR_NAMES = (DELTA_MANIFEST, MODEL_MANIFEST, SUMS_NAME, WEIGHTS_NAME, CORRECTIONS_NAME)
EXACT, ADDITIVE, MODEL = "vicuna exact delta", "vicuna additive delta", "vicuna model"
FORMATS, VERSION = (EXACT, ADDITIVE, MODEL), 2
NO_HASH = "0" * 64
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".pkl")
LEFT_OUT_SUFFIXES = (*WEIGHT_SUFFIXES, ".safetensors.index.json", ".bin.index.json", ".py", ".tmp")
MAX_MANIFEST_BYTES, MAX_MANIFEST_PARTS = 256 << 20, 8_000_000
MAX_NUMBER = 2**63 - 1  # of sizes and places
MAX_TEXT_CHARACTERS = 1_000  # of the tool's name, the template's and the sources'


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of the target. A model's own manifest (format MODEL) has the first three fields only.

    Args:
        target_sha256: hash of its bytes.
        quick_sha256: hash of samples of its bytes (`shard_writer.sample_spans`).
        base_name, base_dtype, base_shape: the base's tensor that the difference is to, or None where the tensor is
            stored whole: the base has none that fits.
        base_sha256: hash of those of the base tensor's bytes that the difference is to.
        delta_sha256: hash of the tensor's frames (exact) or of the difference (additive).
        offset, size_bytes: where the frames (exact) or the corrections (additive) are in their file.
        corrections_sha256, num_corrections: hash of the corrections' bytes, and how many numbers they correct.
    """

    name: str
    target_sha256: str
    quick_sha256: str
    base_name: str | None = None
    base_dtype: str | None = None
    base_shape: tuple[int, ...] | None = None
    base_sha256: str | None = None
    delta_sha256: str | None = None
    offset: int = 0
    size_bytes: int = 0
    corrections_sha256: str | None = None
    num_corrections: int = 0


@dataclass(frozen=True)
class ShardRecord:
    """One safetensors file of the target: name, hash and its header's exact text, from which it is rebuilt."""

    file: str
    sha256: str
    header: str


@dataclass(frozen=True)
class Manifest:
    """A delta's or a model's format, origin, files and hashes. The field names are the keys of the JSON file.

    Args:
        format: one of FORMATS.
        tool: the program and version that wrote it.
        template: the conversation template that the model was trained with.
        sources: what it was made of, by part ("base", "target", "delta", "adapter"): `{"id", "revision"}` where that
            came from the Hugging Face hub; folders are not named.
        weights_sha256: hash of the delta's file of frames or of corrections.
        index: the text of the target's `model.safetensors.index.json`.
        files: hashes of the files copied verbatim (tokenizer, configuration), by name.
    """

    format: str
    tool: str
    template: str | None
    base_vocab_size: int | None
    target_vocab_size: int | None
    sources: dict[str, dict[str, str]]
    weights_sha256: str | None
    shards: tuple[ShardRecord, ...]
    index: str | None
    files: dict[str, str]
    tensors: tuple[TensorRecord, ...]

    def target_shards(self) -> list[Shard]:
        """The files of the target's weights."""
        return [
            Shard(shard.file, shard.header.encode(), parse_header(shard.header.encode(), None, shard.file))
            for shard in self.shards
        ]

    def write(self, path: Path) -> None:
        """Save as JSON, atomically. The text holds its own hash, taken with zeros in the hash's place."""
        value = {**dataclasses.asdict(self), "version": VERSION, "manifest_sha256": NO_HASH}
        text = format_json(value, indent=2, sort_keys=True) + "\n"
        with atomic_file(path, follows_link=False) as file:
            file.write(text.replace(NO_HASH, _sha256(text), 1))


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        VicunaError: there is none, or it is of a newer version.
        VerificationError: it contradicts itself or is not a manifest.
    """
    try:
        if not path.exists():
            raise FileNotFoundError
        data = read_model_bytes(path, MAX_MANIFEST_BYTES)
        value, text = parse_model_json(data, str(path), max_parts=MAX_MANIFEST_PARTS), data.decode("utf-8")
        if value["format"] not in FORMATS:
            raise ValueError("it is of another format")
        version, own = value.pop("version"), value.pop("manifest_sha256")
        if version == VERSION:
            if _sha256(text.replace(own, NO_HASH, 1)) != own:
                raise ValueError("it does not have its own hash")
            return _checked(value)
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r}")
    except FileNotFoundError:
        raise VicunaError(
            f"{path}: no such file or folder; give the delta or the manifest that came with the model"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, VicunaError) as error:
        reason = printable(str(error), limit=300)
        raise VerificationError(f"{path} is damaged or no manifest ({reason}); fetch it again") from None
    way_out = "upgrade vicuna" if version > VERSION else "make the delta again"
    raise VicunaError(f"{path} has version {version}, this vicuna reads {VERSION}; {way_out}")


def _checked(value: JsonObject) -> Manifest:
    """Build the record from parsed JSON. Raises ValueError, TypeError or KeyError where something is off."""
    manifest = Manifest(
        **{
            **value,
            "shards": tuple(ShardRecord(**shard) for shard in value["shards"]),
            "tensors": tuple(tensor_record(tensor) for tensor in value["tensors"]),
        }
    )
    for text in (manifest.tool, *(shard.header for shard in manifest.shards)):
        _check(isinstance(text, str), "text")
    for size in (manifest.base_vocab_size, manifest.target_vocab_size):
        _check(size is None or (type(size) is int and 0 <= size <= MAX_NUMBER), "vocabulary size")
    for optional in (manifest.template, manifest.index):
        _check(optional is None or isinstance(optional, str), "text")
    for short in (manifest.tool, manifest.template or ""):
        _check(len(short) <= MAX_TEXT_CHARACTERS, f"text: {len(short):,} characters, {MAX_TEXT_CHARACTERS:,} are taken")
    for part, source in manifest.sources.items():
        _check(isinstance(source, dict) and all(isinstance(text, str) for text in source.values()), "source")
        _check(len("".join((part, *source, *source.values()))) <= MAX_TEXT_CHARACTERS, "source: it is too long")
    for name, sha256 in manifest.files.items():
        _check(is_copied_verbatim(name), f"file name {name!r}")
        _check_sha256(sha256)
    tensors: list[Tensor] = []
    for shard in manifest.shards:
        check_shard_name(shard.file, "the manifest")
        _check_sha256(shard.sha256)
        tensors += parse_header(shard.header.encode(), None, shard.file)
    _check([tensor.name for tensor in tensors] == [tensor.name for tensor in manifest.tensors], "order of tensors")
    _check(len({tensor.name for tensor in tensors}) == len(tensors), "a tensor twice")
    _check(len({shard.file for shard in manifest.shards}) == len(manifest.shards), "a shard twice")
    if manifest.index is not None:
        _check_index(manifest.index, manifest.shards, tensors)
    _check((manifest.weights_sha256 is None) == (manifest.format == MODEL), "hash of the weights")
    for record, tensor in zip(manifest.tensors, tensors, strict=True):
        _check_record(record, tensor, manifest.format)
    return manifest


def _check_index(text: str, shards: Sequence[ShardRecord], tensors: Sequence[Tensor]) -> None:
    """See that the index, which is written into the model's folder, says of each tensor the file that it is in."""
    value = parse_model_json(text.encode(), "its index", max_parts=MAX_MANIFEST_PARTS)
    left = iter(tensors)
    counts = [len(parse_header(shard.header.encode(), None, shard.file)) for shard in shards]
    files = {next(left).name: shard.file for shard, count in zip(shards, counts, strict=True) for _ in range(count)}
    _check(isinstance(value, dict) and value.get("weight_map") == files, "index: it names other files or tensors")


def tensor_record(value: JsonObject) -> TensorRecord:
    """A record from its JSON object."""
    shape = value.get("base_shape")
    return TensorRecord(**{**value, "base_shape": None if shape is None else tuple(shape)})


def noted_record(value: JsonObject) -> TensorRecord | None:
    """A record from a journal; None where it is not one that was written there."""
    try:
        record = tensor_record(value)
        numbers = (record.offset, record.size_bytes, record.num_corrections, *(record.base_shape or ()))
        _check(all(type(n) is int and 0 <= n <= MAX_NUMBER for n in numbers), "place")
        hashes = (record.base_sha256, record.delta_sha256, record.corrections_sha256)
        for sha256 in (record.target_sha256, record.quick_sha256, *(one for one in hashes if one is not None)):
            _check_sha256(sha256)
    except (TypeError, ValueError, AttributeError):
        return None
    return record


def _check_record(record: TensorRecord, tensor: Tensor, kind: str) -> None:
    _check_sha256(record.target_sha256)
    _check_sha256(record.quick_sha256)
    numbers = (record.offset, record.size_bytes, record.num_corrections, *(record.base_shape or ()))
    _check(all(type(n) is int and 0 <= n <= MAX_NUMBER for n in numbers), f"place of {record.name!r}")
    base = (record.base_name, record.base_dtype, record.base_shape, record.base_sha256)
    _check(all(part is None for part in base) or all(part is not None for part in base), f"base of {record.name!r}")
    if record.base_dtype is not None:
        is_float = record.base_dtype in FLOATS and tensor.dtype in FLOATS
        _check(is_float and isinstance(record.base_name, str), f"base of {record.name!r}")
        shape = record.base_shape or ()
        _check(len(shape) == len(tensor.shape) and shape[1:] == tensor.shape[1:], f"base of {record.name!r}")
        _check_sha256(record.base_sha256)
    if kind != MODEL:
        _check_sha256(record.delta_sha256)
    if kind == ADDITIVE:
        _check_sha256(record.corrections_sha256)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check(is_good: bool, what: str) -> None:
    if not is_good:
        raise ValueError(f"bad {what}")


def _check_sha256(value: object) -> None:
    _check(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, f"hash {value!r}")


def is_copied_verbatim(name: object) -> bool:
    """Does a delta carry a copy of this file of the target? Not of weights, which are its differences, nor of code."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,200}", name) is not None
        and not name.lower().endswith(LEFT_OUT_SUFFIXES)
        and name not in OUR_NAMES
    )
