"""Writing a checkpoint's safetensors files tensor by tensor, so that a killed run can be resumed.

Stands on `unfinished`; all that write a model or an additive delta use it. Each chunk of a tensor is written and
hashed in one pass: for the tensor, for its file, and for `quick_sha256`, the hash of samples that
`vicuna weights verify --quick` compares.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from vicuna.io.files import atomic_file, open_in_folder
from vicuna.io.log import Progress
from vicuna.weights.files.checkpoint import CHUNK_BYTES, INDEX_NAME
from vicuna.weights.files.manifest import TensorRecord, noted_record
from vicuna.weights.files.tensors import Buffer, Shard, Tensor
from vicuna.weights.files.unfinished import UnfinishedFolder

SAMPLE_BYTES, NUM_SAMPLES = 64 << 10, 4


@dataclass(frozen=True)
class Digests:
    """SHA-256 of a tensor's bytes, and of samples of them (`sample_spans`)."""

    sha256: str
    quick_sha256: str


class TensorDigest:
    """Hashes a tensor's bytes chunk by chunk, all of them and the samples."""

    def __init__(self, size_bytes: int) -> None:
        self._whole, self._samples, self._position = hashlib.sha256(), hashlib.sha256(), 0
        self._spans = sample_spans(size_bytes)

    def update(self, chunk: Buffer) -> None:
        """Hash the next chunk."""
        self._whole.update(chunk)
        end = self._position + len(chunk)
        for start, stop in self._spans:
            if start < end and stop > self._position:
                self._samples.update(chunk[max(start - self._position, 0) : stop - self._position])
        self._position = end

    def digests(self) -> Digests:
        """The hashes, when all chunks have been given."""
        return Digests(self._whole.hexdigest(), self._samples.hexdigest())


def sample_spans(size_bytes: int) -> list[tuple[int, int]]:
    """The bytes of a tensor that `quick_sha256` covers, as (start, stop).

    64 KiB each at its start, at one and two thirds, and at its end; all of a small tensor.
    """
    if size_bytes <= SAMPLE_BYTES * NUM_SAMPLES:
        return [(0, size_bytes)]
    starts = [i * (size_bytes - SAMPLE_BYTES) // (NUM_SAMPLES - 1) for i in range(NUM_SAMPLES)]
    return [(start, start + SAMPLE_BYTES) for start in starts]


@dataclass
class ShardWriter:
    """Writes shards; a tensor that an earlier run wrote, and that still has its hash, is kept.

    Args:
        data_of: gives a tensor's bytes, in chunks.
        record_of: the record to note of a tensor that was written. It raises if the hash is not the expected one.
        written: the hash, out of a record, that the bytes in these files have.
        is_done: whether what an earlier run wrote elsewhere for a tensor that it noted is right, too.
        hash_files: also hash whole files, for callers who do not know their hashes.
    """

    unfinished: UnfinishedFolder
    progress: Progress
    data_of: Callable[[Tensor], Iterable[Buffer]]
    record_of: Callable[[Tensor, Digests], TensorRecord]
    written: Callable[[TensorRecord], str | None] = lambda record: record.target_sha256
    is_done: Callable[[Tensor, TensorRecord], bool] = lambda _tensor, _record: True
    hash_files: bool = True

    def write(self, shards: Sequence[Shard], index: bytes | None) -> tuple[list[TensorRecord], dict[str, str]]:
        """Write all files.

        Returns:
            The tensors' records in order, and the SHA-256 of every file by its name (empty without `hash_files`).
        """
        records: list[TensorRecord] = []
        digests = {shard.file_name: self._write_shard(shard, records) for shard in shards}
        digests = digests if self.hash_files else {}
        if index is not None:
            with atomic_file(self.unfinished.folder / INDEX_NAME, "wb", follows_link=False) as file:
                file.write(index)
        return records, digests

    def _write_shard(self, shard: Shard, records: list[TensorRecord]) -> str:
        whole, growing = self.unfinished.folder / shard.file_name, self.unfinished.folder / f"{shard.file_name}.tmp"
        if whole.exists():  # finished by an earlier run; its tensors are hashed before they are kept
            os.replace(whole, growing)
        with open_in_folder(growing, "r+b") as file:
            if file.read(len(shard.preamble)) != shard.preamble:
                self.unfinished.discard_rest()
                file.seek(0)
                file.truncate()
                file.write(shard.preamble)
            digest = hashlib.sha256(shard.preamble)
            for tensor in shard.tensors:
                position = len(shard.preamble) + tensor.offset
                record, digest = self._reuse(file, position, tensor, digest)
                if record is None:
                    record = self._write_tensor(file, position, tensor, digest)
                records.append(record)
            file.truncate(shard.size_bytes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(growing, whole)
        return digest.hexdigest()

    def _write_tensor(self, file: IO[bytes], position: int, tensor: Tensor, digest: "hashlib._Hash") -> TensorRecord:
        self.unfinished.discard_rest()
        file.seek(position)
        file.truncate()
        own = TensorDigest(tensor.size_bytes)
        for chunk in self.data_of(tensor):
            file.write(chunk)
            own.update(chunk)
            if self.hash_files:
                digest.update(chunk)
            self.progress.update(len(chunk))
        assert file.tell() == position + tensor.size_bytes, f"{tensor}: {file.tell() - position} bytes were made"
        file.flush()
        record = self.record_of(tensor, own.digests())
        self.unfinished.note(vars(record))
        return record

    def _reuse(
        self, file: IO[bytes], position: int, tensor: Tensor, digest: "hashlib._Hash"
    ) -> tuple[TensorRecord | None, "hashlib._Hash"]:
        """The record of a tensor that an earlier run wrote, if its bytes are right, and the file's hash with it."""
        noted = self.unfinished.next_noted(tensor.name)
        if noted is None or (record := noted_record(noted)) is None:
            return None, digest
        own, longer = TensorDigest(tensor.size_bytes), digest.copy()
        for chunk in read_region(file, position, tensor.size_bytes):
            own.update(chunk)
            if self.hash_files:
                longer.update(chunk)
        if own.digests().sha256 != self.written(record) or not self.is_done(tensor, record):
            return None, digest
        self.unfinished.confirm()
        self.progress.update(tensor.size_bytes)
        return record, longer


def read_region(file: IO[bytes], position: int, size: int) -> Iterator[bytes]:
    """`size` bytes of a file from `position`, in chunks; fewer where the file ends before."""
    file.seek(position)
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        yield chunk
        size -= len(chunk)
