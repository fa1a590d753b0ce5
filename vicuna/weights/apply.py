"""Apply an exact delta: a base and a `delta` folder in, the target model out, verified bit by bit.

The command `vicuna.apply_delta` calls it. A few frames are in memory whatever the model's size, and the model's folder
gets its name only when every hash has come out right.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from vicuna.errors import VerificationError, require
from vicuna.files import atomic_directory, ensure_free_space
from vicuna.log import Progress
from vicuna.weights.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.codec import cast, decode_frame, in_order
from vicuna.weights.delta import (
    DAMAGED,
    FILES_NAME,
    FRAME_BYTES,
    FRAME_HEADER,
    PREAMBLE,
    SUMS_NAME,
    read_base,
    read_delta,
    read_sums,
)
from vicuna.weights.detect import refuse_delta
from vicuna.weights.manifest import DELTA_MANIFEST, MODEL_MANIFEST, WEIGHTS_NAME, Manifest, TensorRecord
from vicuna.weights.shard import Tensor


def apply_delta(base: Path, delta: Path, target: Path) -> Manifest:
    """Make the model `target` out of `base` and `delta`, and verify it.

    Returns:
        The manifest, whose every hash the new files have.

    Raises:
        VerificationError: `base` is not the delta's base, or the delta is damaged; nothing is left behind.
        VicunaError: something cannot be read, `target` exists, or the disk is too full.
    """
    require("zstandard", "export")
    manifest = read_delta(delta)
    refuse_delta(base)
    with CheckpointReader(base) as reader:
        check_base_tensors(manifest, reader)
        shards = manifest.plan()
        files_bytes = sum((delta / FILES_NAME / name).stat().st_size for name in manifest.files)
        ensure_free_space(target, sum(shard.size_bytes for shard in shards) + files_bytes, f"the model {target}")
        with atomic_directory(target) as folder:
            total = sum(tensor.size_bytes for shard in shards for tensor in shard.tensors)
            with (
                (delta / WEIGHTS_NAME).open("rb") as file,
                Progress(total, description="applying the delta", unit="B") as progress,
            ):
                decoder = _Decoder(manifest, reader, file, progress)
                index = None if manifest.index is None else manifest.index.encode()
                digests = write_checkpoint(folder, shards, index, decoder.data_of)
                decoder.check_end(read_sums(delta)[WEIGHTS_NAME])
            for shard in manifest.shards:
                if digests[shard.file] != shard.sha256:
                    raise VerificationError(
                        f"{shard.file} does not get the hash in {delta / DELTA_MANIFEST}; {DAMAGED}"
                    )
            for name in manifest.files:
                shutil.copyfile(delta / FILES_NAME / name, folder / name)
            manifest.write(folder / MODEL_MANIFEST)
    return manifest


def check_base_tensors(manifest: Manifest, base: CheckpointReader) -> None:
    """Has the base a tensor of the right shape and dtype for each difference?

    Raises:
        VerificationError: not; the message names the first one.
    """
    planned = {tensor.name: tensor for shard in manifest.plan() for tensor in shard.tensors}
    for record in manifest.tensors:
        if record.base_dtype is None:
            continue
        wanted = Tensor(record.name, record.base_dtype, planned[record.name].shape)
        found = base.tensors.get(record.name)
        if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            has = "no such tensor" if found is None else str(found)
            raise VerificationError(
                f"{base.path} is not this delta's base: the delta needs {wanted}, the base has {has}; "
                "give the model from which the delta was made"
            )


class _Decoder:
    """Gives the target's tensors one after the other, and believes no byte that its hash does not confirm."""

    def __init__(self, manifest: Manifest, base: CheckpointReader, file: IO[bytes], progress: Progress) -> None:
        self.base, self.file, self.progress = base, file, progress
        self._records = {record.name: record for record in manifest.tensors}
        self._file_digest = hashlib.sha256()
        if self._take(len(PREAMBLE)) != PREAMBLE:
            raise VerificationError(f"{file.name} does not begin as a delta's weights do; {DAMAGED}")

    def data_of(self, tensor: Tensor) -> Iterator[bytes]:
        """The target's bytes of the next tensor, frame by frame."""
        record = self._records[tensor.name]
        base_digest, delta_digest, target_digest = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

        def pieces() -> Iterator[tuple[int, bytes, bytes | None, int]]:
            left = record.size_bytes
            for start in range(0, tensor.size_bytes, FRAME_BYTES):
                size = min(FRAME_BYTES, tensor.size_bytes - start)
                header = self._take(FRAME_HEADER.size)
                kind, payload_size = FRAME_HEADER.unpack(header) if len(header) == FRAME_HEADER.size else (-1, 0)
                if payload_size > min(size, left - len(header)):
                    raise self._damaged(tensor)
                payload = self._take(payload_size)
                left -= len(header) + len(payload)
                delta_digest.update(header + payload)
                base_data = None
                if record.base_dtype is not None:
                    base_data = read_base(self.base, tensor, record.base_dtype, start, size)
                    base_digest.update(base_data)
                yield kind, payload, base_data, size

        def decode(piece: tuple[int, bytes, bytes | None, int]) -> bytes:
            kind, payload, base_data, size = piece
            if base_data is not None and record.base_dtype is not None:
                base_data = cast(base_data, record.base_dtype, tensor.dtype)
            return decode_frame(kind, payload, base_data, tensor.dtype, size)

        try:
            for data in in_order(decode, pieces()):
                target_digest.update(data)
                self.progress.update(len(data))
                yield data
        except ValueError as error:
            raise self._damaged(tensor, f" ({error})") from None
        if delta_digest.hexdigest() != record.delta_sha256:
            raise self._damaged(tensor)
        if record.base_sha256 is not None and base_digest.hexdigest() != record.base_sha256:
            self._refuse_base(record, base_digest.hexdigest())
        if target_digest.hexdigest() != record.target_sha256:
            raise VerificationError(f"tensor {tensor.name!r} does not come out with its hash; {DAMAGED}")

    def check_end(self, sha256: str) -> None:
        """The whole file must have this hash."""
        if self.file.read(1) or self._file_digest.hexdigest() != sha256:
            raise VerificationError(f"{self.file.name} does not have the hash in {SUMS_NAME}; {DAMAGED}")

    def _damaged(self, tensor: Tensor, why: str = "") -> VerificationError:
        return VerificationError(f"tensor {tensor.name!r} of {self.file.name} is damaged{why}; fetch the delta again")

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        self._file_digest.update(data)
        return data

    def _refuse_base(self, record: TensorRecord, sha256: str) -> NoReturn:
        if sha256 == record.target_sha256:
            raise VerificationError(
                f"{self.base.path} is already the target of this delta (tensor {record.name!r} shows it); "
                "it was applied before, so there is nothing to do"
            )
        raise VerificationError(
            f"{self.base.path} is not this delta's base: tensor {record.name!r} differs "
            f"(SHA-256 {sha256[:12]}, not {str(record.base_sha256)[:12]}); give the model from which the delta was made"
        )
