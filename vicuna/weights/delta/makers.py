"""Encoding the tensors of a delta, in both formats: base and target are read together, encoded, hashed and written.

Called by `make`; `layout` has the format of what is written.
"""

import hashlib
from collections.abc import Iterator

from vicuna.io.log import Progress
from vicuna.weights.delta.additive import add, find_corrections, subtract
from vicuna.weights.delta.codec import encode_frame
from vicuna.weights.delta.layout import FRAME_BYTES, FRAME_HEADER
from vicuna.weights.delta.pairs import cast_base, find_base, read_base
from vicuna.weights.delta.regions import RegionFile
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.manifest import ShardRecord, TensorRecord, noted_record, tensor_record
from vicuna.weights.files.shard_writer import Digests, ShardWriter, TensorDigest
from vicuna.weights.files.tensors import Buffer, Shard, Tensor
from vicuna.weights.files.threads import map_in_threads
from vicuna.weights.files.unfinished import UnfinishedFolder


class _TensorPair:
    """Reads a tensor of the target and its base frame by frame, and hashes both."""

    def __init__(self, base: CheckpointReader, target: CheckpointReader, tensor: Tensor) -> None:
        self.tensor, self.base = tensor, find_base(tensor, base)
        self._base_reader, self._target_reader = base, target
        self._base_digest, self._target_digest = hashlib.sha256(), TensorDigest(tensor.size_bytes)

    def frames(self, shard_digest: "hashlib._Hash") -> Iterator[tuple[bytes, bytes | None]]:
        """The bytes of target and base of each frame. `shard_digest` is updated with the target's."""
        for start in range(0, self.tensor.size_bytes, FRAME_BYTES):
            data = self._target_reader.read(self.tensor.name, start, FRAME_BYTES)
            self._target_digest.update(data)
            shard_digest.update(data)
            base_data = None
            if self.base is not None:
                base_data = read_base(self._base_reader, self.base, self.tensor, start, len(data))
                self._base_digest.update(base_data)
            yield data, base_data

    def cast_base(self, base_data: bytes | None, size: int) -> bytes | None:
        """The base's numbers of a frame in the target's dtype; None without a base."""
        return None if base_data is None or self.base is None else cast_base(base_data, self.base, self.tensor, size)

    def record(self, **rest: str | int) -> TensorRecord:
        """The tensor's record, when all frames have been read; `rest` are the fields about the delta."""
        base, target = self.base, self._target_digest.digests()
        return tensor_record(
            {
                "name": self.tensor.name,
                "target_sha256": target.sha256,
                "quick_sha256": target.quick_sha256,
                "base_name": base and base.name,
                "base_dtype": base and base.dtype,
                "base_shape": base and base.shape,
                "base_sha256": base and self._base_digest.hexdigest(),
                **rest,
            }
        )


class _Maker:
    """What both formats share: the target's shards in order, and the hash of each."""

    def __init__(
        self,
        base: CheckpointReader,
        target: CheckpointReader,
        unfinished: UnfinishedFolder,
        regions: RegionFile,
        progress: Progress,
    ) -> None:
        self.base, self.target, self.progress = base, target, progress
        self.unfinished, self.regions = unfinished, regions
        self.shards: list[ShardRecord] = []
        self._digest = hashlib.sha256()

    def write(self) -> tuple[list[TensorRecord], dict[str, str]]:
        """Encode and write all tensors.

        Returns:
            The tensors' records in order, and the hashes of safetensors files that were written, by name.
        """
        raise NotImplementedError

    def _begin_shard(self, shard: Shard) -> None:
        self._digest = hashlib.sha256(shard.preamble)

    def _end_shard(self, shard: Shard) -> None:
        self.shards.append(ShardRecord(shard.file_name, self._digest.hexdigest(), shard.header.decode()))

    def _is_reusable(self, tensor: Tensor, record: TensorRecord, sha256: str | None) -> bool:
        """Whether target and region have the hashes that an earlier run noted; then both are skipped."""
        own, longer = hashlib.sha256(), self._digest.copy()
        for chunk in self.target.chunks(tensor.name):
            own.update(chunk)
            longer.update(chunk)
        if own.hexdigest() != record.target_sha256:
            return False
        if not self.regions.reuse(record.offset, record.size_bytes, sha256):
            return False
        self._digest = longer
        return True


class ExactMaker(_Maker):
    """Writes frames, one region for each tensor."""

    def write(self) -> tuple[list[TensorRecord], dict[str, str]]:
        records = []
        for shard in self.target.shards:
            self._begin_shard(shard)
            records += [self._reuse(tensor) or self._encode(tensor) for tensor in shard.tensors]
            self._end_shard(shard)
        return records, {}

    def _reuse(self, tensor: Tensor) -> TensorRecord | None:
        noted = self.unfinished.next_noted(tensor.name)
        record = None if noted is None else noted_record(noted)
        if record is None or not self._is_reusable(tensor, record, record.delta_sha256):
            return None
        self.unfinished.confirm()
        self.progress.update(tensor.size_bytes)
        return record

    def _encode(self, tensor: Tensor) -> TensorRecord:
        self.unfinished.discard_rest()
        self.regions.begin()
        pair = _TensorPair(self.base, self.target, tensor)

        def encode(frame: tuple[bytes, bytes | None]) -> tuple[bytes, int]:
            data, base_data = frame
            kind, payload = encode_frame(data, pair.cast_base(base_data, len(data)), tensor.dtype)
            return FRAME_HEADER.pack(kind, len(payload)) + payload, len(data)

        for encoded, size in map_in_threads(encode, pair.frames(self._digest)):
            self.regions.write(encoded)
            self.progress.update(size)
        offset, size_bytes, sha256 = self.regions.end()
        record = pair.record(offset=offset, size_bytes=size_bytes, delta_sha256=sha256)
        self.unfinished.note(vars(record))
        return record


class AdditiveMaker(_Maker):
    """Writes differences in safetensors files like the target's, and corrections, one region for each tensor."""

    def write(self) -> tuple[list[TensorRecord], dict[str, str]]:
        records: list[TensorRecord] = []
        digests: dict[str, str] = {}
        writer = ShardWriter(
            self.unfinished, self.progress, self._data_of, self._record_of, lambda r: r.delta_sha256, self._is_done
        )
        for shard in self.target.shards:
            self._begin_shard(shard)
            made, files = writer.write([shard], self.target.index if shard is self.target.shards[-1] else None)
            records += made
            digests |= files
            self._end_shard(shard)
        return records, digests

    def _data_of(self, tensor: Tensor) -> Iterator[Buffer]:
        self.regions.begin()
        self._pair = pair = _TensorPair(self.base, self.target, tensor)
        self._num_corrections = 0

        def encode(frame: tuple[bytes, bytes | None]) -> tuple[Buffer, tuple[int, bytes] | None]:
            data, base_data = frame
            if (base_numbers := pair.cast_base(base_data, len(data))) is None:
                return data, None
            difference = subtract(data, base_numbers, tensor.dtype)
            return difference, find_corrections(data, add(base_numbers, difference, tensor.dtype), tensor.dtype)

        for difference, corrections in map_in_threads(encode, pair.frames(self._digest)):
            if corrections is not None:
                count, packed = corrections
                self.regions.write(FRAME_HEADER.pack(count, len(packed)) + packed)
                self._num_corrections += count
            yield difference

    def _record_of(self, _: Tensor, written: Digests) -> TensorRecord:
        offset, size_bytes, sha256 = self.regions.end()
        return self._pair.record(
            delta_sha256=written.sha256,
            offset=offset,
            size_bytes=size_bytes,
            corrections_sha256=sha256,
            num_corrections=self._num_corrections,
        )

    def _is_done(self, tensor: Tensor, record: TensorRecord) -> bool:
        return self._is_reusable(tensor, record, record.corrections_sha256)
