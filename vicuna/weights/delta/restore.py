"""Decoding the target's tensors from a base and a delta, in both formats; every hash is checked.

Called by `apply`; `layout` has the format of what is read.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from vicuna.errors import VerificationError
from vicuna.weights.delta.additive import add, correct
from vicuna.weights.delta.codec import decode_frame
from vicuna.weights.delta.layout import DAMAGED, FRAME_BYTES, FRAME_HEADER, PREAMBLES, REGION_NAMES
from vicuna.weights.delta.pairs import cast_base, read_base
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.manifest import ADDITIVE, EXACT, Manifest, TensorRecord
from vicuna.weights.files.shard_writer import Digests
from vicuna.weights.files.tensors import Buffer, Tensor
from vicuna.weights.files.threads import map_in_threads

MAX_CORRECTIONS_BYTES = 4 * FRAME_BYTES  # more than any list of a frame's numbers takes

Part = tuple[int, bytes, bytes]  # a frame's first header number, its payload, and the additive difference


class Restorer:
    """Decodes the target's tensors, in any order. Use as a context manager."""

    def __init__(self, manifest: Manifest, base: CheckpointReader, delta: Path) -> None:
        self.base = base
        self._records = {record.name: record for record in manifest.tensors}
        preamble = PREAMBLES[manifest.format]
        self._regions = (delta / REGION_NAMES[manifest.format]).open("rb")
        if self._regions.read(len(preamble)) != preamble:
            self._regions.close()
            raise VerificationError(f"{self._regions.name} does not begin as a delta's weights do; {DAMAGED}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._regions.close()

    def data_of(self, tensor: Tensor) -> Iterator[Buffer]:
        """The target's bytes of a tensor, frame by frame.

        Raises:
            VerificationError: base or delta do not have the manifest's hashes.
        """
        record = self._records[tensor.name]
        base = None if record.base_name is None else self.base.tensors[record.base_name]
        self._base_digest, self._difference_digest, self._region_digest = (hashlib.sha256() for _ in range(3))
        self._regions.seek(record.offset)
        self._left = record.size_bytes

        def frames() -> Iterator[tuple[Part, bytes | None, int]]:
            for start in range(0, tensor.size_bytes, FRAME_BYTES):
                size = min(FRAME_BYTES, tensor.size_bytes - start)
                part, base_data = self._read(tensor, record, start, size), None
                if base is not None:
                    base_data = read_base(self.base, base, tensor, start, size)
                    self._base_digest.update(base_data)
                yield part, base_data, size

        def restore(frame: tuple[Part, bytes | None, int]) -> Buffer:
            part, base_data, size = frame
            base_numbers = None if base is None or base_data is None else cast_base(base_data, base, tensor, size)
            return self._restore(tensor, part, base_numbers, size)

        try:
            yield from map_in_threads(restore, frames())
        except ValueError as error:
            raise self._damaged(tensor, self._regions.name, f" ({error})") from None
        self._check_delta(tensor, record)
        if record.base_sha256 is not None and self._base_digest.hexdigest() != record.base_sha256:
            self._refuse_base(record, self._base_digest.hexdigest())

    def record_of(self, tensor: Tensor, written: Digests) -> TensorRecord:
        """The manifest's record of a tensor that was written.

        Raises:
            VerificationError: the tensor has another hash.
        """
        record = self._records[tensor.name]
        if (written.sha256, written.quick_sha256) != (record.target_sha256, record.quick_sha256):
            raise VerificationError(f"tensor {tensor.name!r} does not come out with its hash; {DAMAGED}")
        return record

    def _read(self, tensor: Tensor, record: TensorRecord, start: int, size: int) -> Part:
        """Read and hash the delta's bytes of one frame."""
        raise NotImplementedError

    def _restore(self, tensor: Tensor, part: Part, base: bytes | None, size: int) -> Buffer:
        """The target's bytes of one frame. Raises ValueError where the delta is damaged."""
        raise NotImplementedError

    def _check_delta(self, tensor: Tensor, record: TensorRecord) -> None:
        """See that what was read of the delta has the record's hashes. Raises VerificationError."""
        raise NotImplementedError

    def _frame(self, tensor: Tensor, max_bytes: int) -> tuple[int, bytes]:
        """The next frame: the first number of its header, and its payload."""
        header = self._regions.read(min(FRAME_HEADER.size, self._left))
        number, size = FRAME_HEADER.unpack(header) if len(header) == FRAME_HEADER.size else (0, max_bytes + 1)
        if size > min(max_bytes, self._left - len(header)):
            raise self._damaged(tensor, self._regions.name)
        payload = self._regions.read(size)
        self._left -= len(header) + size
        self._region_digest.update(header + payload)
        return number, payload

    def _damaged(self, tensor: Tensor, file_name: str, why: str = "") -> VerificationError:
        return VerificationError(f"tensor {tensor.name!r} of {file_name} is damaged{why}; fetch the delta again")

    def _refuse_base(self, record: TensorRecord, sha256: str) -> NoReturn:
        if sha256 == record.target_sha256:
            raise VerificationError(
                f"{self.base.path} is already the target of this delta (tensor {record.name!r} shows it); "
                "it was applied before, so there is nothing to do"
            )
        raise VerificationError(
            f"{self.base.path} is not this delta's base: tensor {record.base_name!r} differs "
            f"(SHA-256 {sha256[:12]}, not {str(record.base_sha256)[:12]}); give the model from which the delta was made"
        )


class ExactRestorer(Restorer):
    """Decodes frames."""

    def _read(self, tensor: Tensor, record: TensorRecord, start: int, size: int) -> Part:  # noqa: ARG002
        return *self._frame(tensor, size), b""

    def _restore(self, tensor: Tensor, part: Part, base: bytes | None, size: int) -> Buffer:
        kind, payload, _ = part
        return decode_frame(kind, payload, base, tensor.dtype, size)

    def _check_delta(self, tensor: Tensor, record: TensorRecord) -> None:
        if self._left or self._region_digest.hexdigest() != record.delta_sha256:
            raise self._damaged(tensor, self._regions.name)


class AdditiveRestorer(Restorer):
    """Adds differences to the base, and corrects the sums."""

    def __init__(self, manifest: Manifest, base: CheckpointReader, delta: Path) -> None:
        super().__init__(manifest, base, delta)
        self._delta = CheckpointReader(delta)
        shards = {shard.file_name: shard.header.decode("utf-8", "replace") for shard in self._delta.shards}
        for shard in manifest.shards:
            if shards.get(shard.file) != shard.header:
                raise VerificationError(f"{delta / shard.file} does not have its header; {DAMAGED}")

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)
        self._delta.__exit__(None, None, None)

    def _read(self, tensor: Tensor, record: TensorRecord, start: int, size: int) -> Part:
        difference = self._delta.read(tensor.name, start, size)
        self._difference_digest.update(difference)
        if record.base_name is None:
            return 0, b"", difference
        return *self._frame(tensor, MAX_CORRECTIONS_BYTES), difference

    def _restore(self, tensor: Tensor, part: Part, base: bytes | None, size: int) -> Buffer:  # noqa: ARG002
        count, packed, difference = part
        if base is None:
            return difference
        return correct(add(base, difference, tensor.dtype), count, packed, tensor.dtype)

    def _check_delta(self, tensor: Tensor, record: TensorRecord) -> None:
        if self._difference_digest.hexdigest() != record.delta_sha256:
            raise self._damaged(tensor, str(self._delta.file_of(tensor.name)))
        if self._left or self._region_digest.hexdigest() != record.corrections_sha256:
            raise self._damaged(tensor, self._regions.name)


def open_restorer(manifest: Manifest, base: CheckpointReader, delta: Path) -> Restorer:
    """The restorer of a delta's format.

    Raises:
        VerificationError: a file does not begin as it must.
    """
    return {EXACT: ExactRestorer, ADDITIVE: AdditiveRestorer}[manifest.format](manifest, base, delta)
