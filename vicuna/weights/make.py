"""Make an exact delta: base and target in, the folder that `delta` describes out.

The command `vicuna.make_delta` calls it. A few frames are in memory whatever the models' size; hashes are taken as the
bytes pass; the folder gets its name when it is whole.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import vicuna
from vicuna.errors import UsageError, require
from vicuna.files import atomic_directory, ensure_free_space, sha256_file
from vicuna.jsonl import read_json
from vicuna.log import Progress, info
from vicuna.weights.checkpoint import CheckpointReader
from vicuna.weights.codec import cast, encode_frame, in_order
from vicuna.weights.delta import (
    FILES_NAME,
    FRAME_BYTES,
    FRAME_HEADER,
    PREAMBLE,
    base_dtype_for,
    read_base,
    write_sums,
)
from vicuna.weights.detect import refuse_delta
from vicuna.weights.manifest import (
    DELTA_MANIFEST,
    MODEL_MANIFEST,
    WEIGHTS_NAME,
    Manifest,
    ShardRecord,
    TensorRecord,
    is_copied_verbatim,
)
from vicuna.weights.shard import Tensor

Value = TypeVar("Value")
MAX_COPIED_BYTES = 256 << 20


@dataclass(frozen=True)
class DeltaSummary:
    """What was made: sizes of the target's tensors and of the delta's weights file, in bytes."""

    num_tensors: int
    num_whole: int  # stored without a base
    target_bytes: int
    delta_bytes: int


def make_delta(base: Path, target: Path, delta: Path) -> DeltaSummary:
    """Write the folder `delta`, from which `apply_delta` makes `target` out of `base`.

    Raises:
        VicunaError: base or target cannot be read or is itself a delta, or `delta` exists.
    """
    require("zstandard", "export")
    refuse_delta(base)
    refuse_delta(target)
    if not target.is_dir():
        raise UsageError(f"--target {target} is not a folder; give the fine-tuned model's folder")
    if base.resolve() == target.resolve():
        raise UsageError(f"--base and --target are the same model, {base}; give the original and the fine-tuned one")
    with CheckpointReader(base) as base_reader, CheckpointReader(target) as target_reader:
        template = _from_json(target / "vicuna_template.json", "template", str)
        base_vocab_size = _from_json(base / "config.json", "vocab_size", int)
        target_vocab_size = _from_json(target / "config.json", "vocab_size", int)
        # Frames that do not shrink are stored as they are, so a delta is never much larger than its target.
        ensure_free_space(delta, target_reader.total_bytes, f"the delta {delta} (at most)")
        with atomic_directory(delta) as folder:
            with (
                (folder / WEIGHTS_NAME).open("wb") as file,
                Progress(target_reader.total_bytes, description="making the delta", unit="B") as progress,
            ):
                encoder = _Encoder(base_reader, target_reader, file, progress)
                tensors, shards = encoder.run()
                delta_bytes = file.tell()
            manifest = Manifest(
                tool=f"vicuna {vicuna.__version__}",
                template=template,
                base_vocab_size=base_vocab_size,
                target_vocab_size=target_vocab_size,
                shards=tuple(shards),
                index=None if target_reader.index is None else target_reader.index.decode(),
                files=_copy_files(target_reader.folder, folder / FILES_NAME),
                tensors=tuple(tensors),
            )
            manifest.write(folder / DELTA_MANIFEST)
            write_sums(folder, encoder.file_sha256)
    whole = sum(tensor.base_dtype is None for tensor in tensors)
    return DeltaSummary(len(tensors), whole, target_reader.total_bytes, delta_bytes)


class _Encoder:
    """Writes the frames of every tensor in the target's order and hashes all that passes."""

    def __init__(self, base: CheckpointReader, target: CheckpointReader, file: IO[bytes], progress: Progress) -> None:
        self.base, self.target, self.file, self.progress = base, target, file, progress
        self._file_digest = hashlib.sha256(PREAMBLE)
        file.write(PREAMBLE)

    @property
    def file_sha256(self) -> str:
        return self._file_digest.hexdigest()

    def run(self) -> tuple[list[TensorRecord], list[ShardRecord]]:
        tensors, shards = [], []
        for shard in self.target.shards:
            shard_digest = hashlib.sha256(shard.preamble)
            tensors += [self._encode(tensor, shard_digest) for tensor in shard.tensors]
            shards.append(ShardRecord(shard.file_name, shard_digest.hexdigest(), shard.header.decode()))
        return tensors, shards

    def _encode(self, tensor: Tensor, shard_digest: "hashlib._Hash") -> TensorRecord:
        base_dtype = base_dtype_for(tensor, self.base.tensors.get(tensor.name))
        base_digest, delta_digest, target_digest = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

        def pieces() -> Iterator[tuple[bytes, bytes | None]]:
            for start in range(0, tensor.size_bytes, FRAME_BYTES):
                data = self.target.read(tensor.name, start, FRAME_BYTES)
                target_digest.update(data)
                shard_digest.update(data)
                base_data = None
                if base_dtype is not None:
                    base_data = read_base(self.base, tensor, base_dtype, start, len(data))
                    base_digest.update(base_data)
                yield data, base_data

        def encode(piece: tuple[bytes, bytes | None]) -> tuple[int, bytes, int]:
            data, base_data = piece
            if base_data is not None and base_dtype is not None:
                base_data = cast(base_data, base_dtype, tensor.dtype)
            return *encode_frame(data, base_data, tensor.dtype), len(data)

        offset = self.file.tell()
        for kind, payload, size in in_order(encode, pieces()):
            frame = FRAME_HEADER.pack(kind, len(payload)) + payload
            self.file.write(frame)
            self._file_digest.update(frame)
            delta_digest.update(frame)
            self.progress.update(size)
        return TensorRecord(
            name=tensor.name,
            base_dtype=base_dtype,
            base_sha256=None if base_dtype is None else base_digest.hexdigest(),
            delta_sha256=delta_digest.hexdigest(),
            target_sha256=target_digest.hexdigest(),
            offset=offset,
            size_bytes=self.file.tell() - offset,
        )


def _copy_files(source: Path, folder: Path) -> dict[str, str]:
    """Copy what is not weights, and return the hashes of the copies."""
    folder.mkdir()
    hashes, left_out = {}, []
    for path in sorted(source.iterdir()):
        if path.is_file() and is_copied_verbatim(path.name) and path.stat().st_size <= MAX_COPIED_BYTES:
            shutil.copyfile(path, folder / path.name)
            hashes[path.name] = sha256_file(folder / path.name)
        elif not path.name.endswith((".safetensors", ".safetensors.index.json")) and path.name != MODEL_MANIFEST:
            left_out.append(path.name)
    if left_out:
        info(f"not carried by the delta: {', '.join(left_out)}")
    return hashes


def _from_json(path: Path, key: str, kind: type[Value]) -> Value | None:
    """A value of a JSON file of the model, or None where there is none."""
    value = read_json(path) if path.is_file() else None
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else None
