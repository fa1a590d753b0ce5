"""Verifying a model or a delta: every tensor and file is hashed and compared with a manifest.

`vicuna weights verify` and the demo call it. A model made by `apply_delta`
carries its manifest; any other copy of the same model is verified against the delta's, however it is split into files.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vicuna.errors import VerificationError, VicunaError
from vicuna.io.files import sha256_file
from vicuna.io.log import Progress
from vicuna.weights.delta.layout import DAMAGED, read_delta, read_sums
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader, check_exists
from vicuna.weights.files.manifest import MODEL_MANIFEST, Manifest, read_manifest
from vicuna.weights.files.shard_writer import sample_spans
from vicuna.weights.files.tensors import Tensor

_WAY_OUT = "get the model again, or verify it against the delta it was made with"


@dataclass(frozen=True)
class Verified:
    """What was hashed and is right: how many tensors, bytes of tensors and other files."""

    num_tensors: int
    size_bytes: int
    num_files: int


def verify_model(model: Path, manifest: Manifest, *, quick: bool = False, is_own: bool = False) -> Verified:
    """Hash every tensor of a model, and every file the manifest lists beside the weights.

    Args:
        is_own: the manifest came with these very files, so that their headers must be the same, too. Another copy may
            be split into files differently.
        quick: hash samples of each tensor instead (`sample_spans`): seconds for any model. Finds another model, another
            version and broken downloads, but not every single wrong byte.

    Raises:
        VerificationError: a tensor or file is missing, extra or different; the message names the first one.
        VicunaError: there is no checkpoint to read.
    """
    with CheckpointReader(model) as reader:
        expected_tensors = {tensor.name: tensor for shard in manifest.target_shards() for tensor in shard.tensors}
        if different := set(expected_tensors) ^ set(reader.tensors):
            name = min(different)
            where = "is missing from" if name in expected_tensors else "is one too many in"
            raise VerificationError(f"tensor {name!r} {where} {model}; {_WAY_OUT}")
        if is_own:
            _check_headers(reader, manifest)
        with Progress(reader.total_bytes, description="verifying", unit="B") as progress:
            for record in manifest.tensors:
                found, wanted = reader.tensors[record.name], expected_tensors[record.name]
                if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
                    raise VerificationError(f"{model} has {found} where the manifest has {wanted}; {_WAY_OUT}")
                digest = hashlib.sha256()
                for chunk in _samples(reader, found) if quick else reader.chunks(record.name):
                    digest.update(chunk)
                    progress.update(0 if quick else len(chunk))
                progress.update(found.size_bytes if quick else 0)
                if digest.hexdigest() == record.base_sha256 != record.target_sha256:
                    raise VerificationError(f"{model} is the base, not the target (tensor {record.name!r}); {_WAY_OUT}")
                expected = record.quick_sha256 if quick else record.target_sha256
                _compare(f"tensor {record.name!r} of {model}", digest.hexdigest(), expected)
        for name, expected in manifest.files.items():
            if not (reader.folder / name).is_file():
                raise VerificationError(f"{reader.folder / name} is missing; {_WAY_OUT}")
            _compare(str(reader.folder / name), sha256_file(reader.folder / name), expected)
        return Verified(len(manifest.tensors), reader.total_bytes, len(manifest.files))


def _check_headers(reader: CheckpointReader, manifest: Manifest) -> None:
    found = {shard.file_name: shard.header.decode("utf-8", "replace") for shard in reader.shards}
    for shard in manifest.shards:
        if found.get(shard.file) != shard.header:
            raise VerificationError(f"{reader.folder / shard.file} is not as it was written (its header); {_WAY_OUT}")
    if (None if reader.index is None else reader.index.decode("utf-8", "replace")) != manifest.index:
        raise VerificationError(f"{reader.folder / INDEX_NAME} is not as it was written; {_WAY_OUT}")


def _samples(reader: CheckpointReader, tensor: Tensor) -> Iterator[bytes]:
    for start, stop in sample_spans(tensor.size_bytes):
        yield reader.read(tensor.name, start, stop - start)


def verify_delta(delta: Path) -> Verified:
    """Check every byte of a delta against its `SHA256SUMS`.

    Raises:
        VerificationError: a file is damaged or missing.
    """
    manifest, size = read_delta(delta), 0
    for name, sha256 in read_sums(delta).items():
        size += (delta / name).stat().st_size
        if sha256_file(delta / name) != sha256:
            raise VerificationError(f"{delta / name} does not have its hash; {DAMAGED}")
    return Verified(len(manifest.tensors), size, len(manifest.files))


def manifest_for(model: Path, delta: Path | None, manifest: Path | None) -> Manifest:
    """The manifest to compare a model with: the one given, the delta's, or the model's own.

    Raises:
        VicunaError: model, delta or manifest do not exist, or the model has no manifest.
    """
    check_exists(model, "the folder of a model or a delta")
    if manifest is not None:
        return read_manifest(manifest)
    if delta is not None:
        return read_delta(delta)
    if not (model / MODEL_MANIFEST).exists():
        raise VicunaError(
            f"{model} carries no {MODEL_MANIFEST} to verify it against; name the delta it was made with (--delta), "
            "or a manifest (--manifest)"
        )
    return read_manifest(model / MODEL_MANIFEST)


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise VerificationError(f"{what} has SHA-256 {found[:16]}... instead of {expected[:16]}...; {_WAY_OUT}")
