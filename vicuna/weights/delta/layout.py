"""The folder of a delta: its layout in both formats, and reading its manifest with every value checked.

`make` writes such folders, and `apply` makes the target out of a base and one of them. `pairs` has the rules by which a
tensor of the target is assigned one of the base.

    vicuna_delta.json     the manifest (`manifest.Manifest`): hashes of every tensor of base, delta and target, the
                          headers of the target's files, the names and hashes of the other files
    SHA256SUMS            hashes of all files, for `sha256sum -c` and for us

exact: the difference of bit patterns, a fifth or less of the model (`codec`)
    weights.vdelta        the frames
    files/                tokenizer, configuration and the like: the target's own bytes

additive: target minus base as numbers, as large as the model; other tools add it too, not quite exactly (`additive`)
    model*.safetensors    the difference, in files with the target's names and headers
    corrections.vdelta    the numbers that base plus difference misses
    the target's tokenizer, configuration and the like, so that the folder loads as a model does

Both `.vdelta` files, all numbers little-endian:

    bytes 0-7    "vicdelta" or "viccorr\\0"
    bytes 8-11   version: 2, or 1 of the corrections
    bytes 12-15  size of a full frame in bytes of the target, 2 MiB
    then, for each tensor in the manifest's order, for each 2 MiB of its data (the last frame holds the rest):
        4 bytes  exact: kind of the payload (0 stored, 1 byte planes in zstd, 2 difference to the base: `codec`);
                 additive: number of corrections (tensors without a base have none, and no frames)
        4 bytes  size of the payload
        the payload
"""

import struct
from pathlib import Path

from vicuna.errors import VerificationError, VicunaError
from vicuna.io.files import sha256_file, write_in_folder
from vicuna.io.model_files import read_model_text
from vicuna.weights.files.checkpoint import INDEX_NAME, check_exists
from vicuna.weights.files.detect import kind_of
from vicuna.weights.files.manifest import (
    ADDITIVE,
    CORRECTIONS_NAME,
    DELTA_MANIFEST,
    EXACT,
    SUMS_NAME,
    WEIGHTS_NAME,
    Manifest,
    read_manifest,
)

FILES_NAME = "files"
MAX_SUMS_BYTES = 4 << 20
FRAME_BYTES = 2 << 20  # half the memory of 4 MiB at the same size and speed
PREAMBLES = {
    EXACT: struct.pack("<8sII", b"vicdelta", 2, FRAME_BYTES),
    ADDITIVE: struct.pack("<8sII", b"viccorr", 1, FRAME_BYTES),
}
REGION_NAMES = {EXACT: WEIGHTS_NAME, ADDITIVE: CORRECTIONS_NAME}
FRAME_HEADER = struct.Struct("<II")
DAMAGED = "the delta is damaged; fetch it again"


def read_delta(delta: Path) -> Manifest:
    """Read a delta's manifest and check everything in the folder but the frames and tensors.

    Raises:
        VerificationError: a file is damaged or missing.
        VicunaError: the folder does not exist, or is no delta with a manifest.
    """
    check_exists(delta, "the folder of a delta")
    if not (delta / DELTA_MANIFEST).exists():
        if any((delta / name).exists() for name in REGION_NAMES.values()):
            raise VerificationError(f"{delta} lacks its {DELTA_MANIFEST}; {DAMAGED}")
        if kind_of(delta) == "model":
            raise VicunaError(f"{delta} is a model, not a delta; give the folder that vicuna make-delta wrote")
        raise VicunaError(f"{delta} is an additive delta without a {DELTA_MANIFEST}: it has no hashes to check")
    sums = read_sums(delta)
    _check_hash(delta, DELTA_MANIFEST, sums)
    manifest = read_manifest(delta / DELTA_MANIFEST)
    if manifest.format not in REGION_NAMES:
        raise VerificationError(f"{delta / DELTA_MANIFEST} is the manifest of a model; {DAMAGED}")
    regions = REGION_NAMES[manifest.format]
    small, large = _names(manifest)
    if different := {*small, *large} ^ set(sums):
        raise VerificationError(
            f"{delta}: {SUMS_NAME} and {DELTA_MANIFEST} disagree about {min(different)!r}; {DAMAGED}"
        )
    for name in (*small, *large):
        if not (delta / name).is_file():
            raise VerificationError(f"{delta / name} is missing; {DAMAGED}")
    for name, sha256 in small.items():
        _check_hash(delta, name, sums)
        if sha256 is not None and sha256 != sums[name]:
            raise VerificationError(f"{delta}: {SUMS_NAME} and {DELTA_MANIFEST} disagree about {name!r}; {DAMAGED}")
    if sums[regions] != manifest.weights_sha256:
        raise VerificationError(f"{delta}: {SUMS_NAME} and {DELTA_MANIFEST} disagree about {regions!r}; {DAMAGED}")
    position = len(PREAMBLES[manifest.format])
    for tensor in manifest.tensors:
        if tensor.offset != position:
            raise VerificationError(f"{delta / DELTA_MANIFEST}: {tensor.name!r} is out of place; {DAMAGED}")
        position += tensor.size_bytes
    if (size := (delta / regions).stat().st_size) != position:
        raise VerificationError(f"{delta / regions} has {size} bytes instead of {position}; {DAMAGED}")
    return manifest


def write_sums(delta: Path, manifest: Manifest, digests: dict[str, str]) -> None:
    """Write `SHA256SUMS` of a complete delta; `digests` are the hashes that are known already, by file name."""
    small, large = _names(manifest)
    known = {**digests, REGION_NAMES[manifest.format]: str(manifest.weights_sha256)}
    sums = {name: known.get(name) or sha256_file(delta / name) for name in (*large, *small)}
    write_in_folder(delta / SUMS_NAME, _sums_text(sums).encode("utf-8"))


def read_sums(delta: Path) -> dict[str, str]:
    """`SHA256SUMS` as {name: hash}; the names are not checked.

    Raises:
        VerificationError: it is not what `write_sums` writes.
    """
    try:
        text = read_model_text(delta / SUMS_NAME, MAX_SUMS_BYTES)
        sums = {name: sha256 for sha256, name in (line.split("  ", 1) for line in text.split("\n")[:-1])}
    except (OSError, ValueError, VicunaError):
        raise VerificationError(f"{delta / SUMS_NAME} is missing or damaged; {DAMAGED}") from None
    if text != _sums_text(sums):
        raise VerificationError(f"{delta / SUMS_NAME} is damaged; {DAMAGED}")
    return sums


def files_folder(delta: Path, manifest: Manifest) -> Path:
    """The folder that has the target's other files."""
    return delta / FILES_NAME if manifest.format == EXACT else delta


def _names(manifest: Manifest) -> tuple[dict[str, str | None], list[str]]:
    """The delta's small files, with their hashes where the manifest has them, and its large ones."""
    prefix = f"{FILES_NAME}/" if manifest.format == EXACT else ""
    small: dict[str, str | None] = {DELTA_MANIFEST: None}
    small |= {prefix + name: sha256 for name, sha256 in manifest.files.items()}
    large = [REGION_NAMES[manifest.format]]
    if manifest.format == ADDITIVE:
        large += [shard.file for shard in manifest.shards]
        if manifest.index is not None:
            small[INDEX_NAME] = None
    return small, large


def _check_hash(delta: Path, name: str, sums: dict[str, str]) -> None:
    if not (delta / name).is_file():
        raise VerificationError(f"{delta / name} is missing; {DAMAGED}")
    if sha256_file(delta / name) != sums.get(name):
        raise VerificationError(f"{delta / name} does not have the hash in {SUMS_NAME}; {DAMAGED}")


def _sums_text(sums: dict[str, str]) -> str:
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
