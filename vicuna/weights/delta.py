"""The folder of an exact delta: its layout, and reading it with every claim checked.

Stands on `manifest`; `make` writes such folders and `apply` turns one and a base into a model. Base + delta = target,
bit for bit.

    vicuna_delta.json   the manifest (`manifest.Manifest`): hashes of every tensor of base and target, the headers of
                        the target's files, the names and hashes of `files/`
    weights.vdelta      the frames
    files/              tokenizer, configuration and the like: the target's own bytes
    SHA256SUMS          hashes of all the above, for `sha256sum -c` and for us

`weights.vdelta`, all numbers little-endian:

    bytes 0-7    "vicdelta"
    bytes 8-11   version, 1
    bytes 12-15  size of a full frame in bytes of the target, 4 MiB
    then, for each tensor in the manifest's order, for each 4 MiB of its data (the last frame holds the rest):
        1 byte   how the payload reads: 0 as it is, 1 byte planes in zstd, 2 difference to the base (see `codec`)
        3 bytes  zero
        4 bytes  size of the payload
        the payload

A tensor is stored as a difference when the base has one of that name and shape and both are F16, BF16 or F32; if the
two dtypes differ, the base is cast first (`codec.cast`). Every other tensor is stored whole. Tensors that only the base
has are not needed. The target's safetensors headers are kept as text, so its files come back byte for byte.
"""

import struct
from pathlib import Path

from vicuna.errors import VerificationError, VicunaError
from vicuna.files import sha256_file
from vicuna.weights.checkpoint import CheckpointReader
from vicuna.weights.codec import FLOATS
from vicuna.weights.detect import kind_of
from vicuna.weights.manifest import DELTA_MANIFEST, WEIGHTS_NAME, Manifest, is_copied_verbatim, read_manifest
from vicuna.weights.shard import ELEMENT_BYTES, Tensor

FILES_NAME, SUMS_NAME = "files", "SHA256SUMS"
FRAME_BYTES = 4 << 20
PREAMBLE = struct.pack("<8sII", b"vicdelta", 1, FRAME_BYTES)
FRAME_HEADER = struct.Struct("<B3xI")
DAMAGED = "the delta is damaged; fetch it again"


def read_delta(delta: Path) -> Manifest:
    """Read a delta's manifest and check everything in the folder but the frames.

    Raises:
        VerificationError: a file is damaged or missing.
        VicunaError: the folder is no exact delta.
    """
    if not (delta / DELTA_MANIFEST).exists():
        if (delta / WEIGHTS_NAME).exists():
            raise VerificationError(f"{delta} lacks its {DELTA_MANIFEST}; {DAMAGED}")
        kind = kind_of(delta)  # names what is wrong if the folder is not even a checkpoint
        if kind == "additive delta":
            raise VicunaError(
                f"{delta} is an additive delta, which is not read; get the merged model or an exact delta"
            )
        raise VicunaError(f"{delta} is a model, not a delta; give the folder that python -m vicuna.make_delta wrote")
    sums = read_sums(delta)
    for name in sums:
        if name != WEIGHTS_NAME and sha256_file(delta / name) != sums[name]:
            raise VerificationError(f"{delta / name} does not have the hash in {SUMS_NAME}; {DAMAGED}")
    manifest = read_manifest(delta / DELTA_MANIFEST)
    listed = {name.removeprefix(f"{FILES_NAME}/"): sha256 for name, sha256 in sums.items() if "/" in name}
    if listed != manifest.files:
        name = min(set(listed.items()) ^ set(manifest.files.items()))[0]
        raise VerificationError(f"{delta}: {SUMS_NAME} and {DELTA_MANIFEST} disagree about {name!r}; {DAMAGED}")
    position = len(PREAMBLE)
    for tensor in manifest.tensors:
        if tensor.offset != position:
            raise VerificationError(f"{delta / DELTA_MANIFEST}: {tensor.name!r} is out of place; {DAMAGED}")
        position += tensor.size_bytes
    if (size := (delta / WEIGHTS_NAME).stat().st_size) != position:
        raise VerificationError(f"{delta / WEIGHTS_NAME} has {size} bytes instead of {position}; {DAMAGED}")
    return manifest


def write_sums(delta: Path, weights_sha256: str) -> None:
    """Write `SHA256SUMS` of a finished delta whose weights file has this hash."""
    names = [DELTA_MANIFEST, *(f"{FILES_NAME}/{path.name}" for path in sorted((delta / FILES_NAME).iterdir()))]
    sums = {WEIGHTS_NAME: weights_sha256, **{name: sha256_file(delta / name) for name in names}}
    (delta / SUMS_NAME).write_text(_sums_text(sums), "utf-8")


def read_sums(delta: Path) -> dict[str, str]:
    """`SHA256SUMS` as {name: hash}, each name one that a delta may have and each file there.

    Raises:
        VerificationError: it is not what `write_sums` writes, or a file is missing.
    """
    try:
        text = (delta / SUMS_NAME).read_text("utf-8")
        sums = {name: sha256 for sha256, name in (line.split("  ", 1) for line in text.split("\n")[:-1])}
    except (OSError, ValueError):
        raise VerificationError(f"{delta / SUMS_NAME} is missing or damaged; {DAMAGED}") from None
    if text != _sums_text(sums):
        raise VerificationError(f"{delta / SUMS_NAME} is damaged; {DAMAGED}")
    for name in {*sums, DELTA_MANIFEST, WEIGHTS_NAME}:
        is_ours = name in (DELTA_MANIFEST, WEIGHTS_NAME) or (
            name.startswith(f"{FILES_NAME}/") and is_copied_verbatim(name.removeprefix(f"{FILES_NAME}/"))
        )
        if name not in sums or not is_ours or not (delta / name).is_file():
            raise VerificationError(f"{delta}: {SUMS_NAME} and the folder disagree about {name!r}; {DAMAGED}")
    return sums


def _sums_text(sums: dict[str, str]) -> str:
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())


def base_dtype_for(tensor: Tensor, base: Tensor | None) -> str | None:
    """The dtype of the base's tensor if the target's can be stored as a difference to it, else None."""
    is_match = base is not None and base.shape == tensor.shape and base.dtype in FLOATS and tensor.dtype in FLOATS
    return base.dtype if is_match and base is not None else None


def read_base(reader: CheckpointReader, tensor: Tensor, base_dtype: str, start: int, size: int) -> bytes:
    """The base's bytes for the numbers that lie at `start` to `start + size` of the target's tensor."""
    width, base_width = ELEMENT_BYTES[tensor.dtype], ELEMENT_BYTES[base_dtype]
    return reader.read(tensor.name, start // width * base_width, size // width * base_width)
