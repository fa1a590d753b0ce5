"""Hugging Face checkpoints (safetensors, single or sharded) read and written as streams, without torch.

Stands on `shard`; the delta tools, the delta detector and the small model's converter stand on it. Memory stays at one
chunk whatever the model's size, and nothing is believed before it is checked: an index may name a file outside its
folder, a header may lie about sizes. A sharded model has `model.safetensors.index.json`, which holds
`{"weight_map": {tensor: file}}`, beside its shards.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.errors import VicunaError
from vicuna.files import atomic_file
from vicuna.weights.shard import SINGLE_NAME, Shard, Tensor, check_shard_name, read_shard

CHUNK_BYTES = 4 << 20
INDEX_NAME = "model.safetensors.index.json"
PICKLE_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class CheckpointReader:
    """A model's tensors by name, whichever shard they lie in. Use as a context manager.

    Args:
        path: a Hugging Face model folder, or one safetensors file.

    Raises:
        VicunaError: there is no checkpoint, it is damaged, or it is of a kind that is not read.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        self.path = path
        self.folder = path.parent if path.is_file() else path
        self.index: bytes | None = None
        self.shards = [read_shard(path)] if path.is_file() else self._read_folder()
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[str, tuple[str, int]] = {}  # tensor -> file, byte in it
        for shard in self.shards:
            for tensor in shard.tensors:
                if tensor.name in self.tensors:
                    both = f"{self._places[tensor.name][0]} and {shard.file_name}"
                    raise VicunaError(f"{self.folder}: tensor {tensor.name!r} is in {both}; fetch the checkpoint again")
                self.tensors[tensor.name] = tensor
                self._places[tensor.name] = (shard.file_name, 8 + len(shard.header) + tensor.offset)
        if self.index is not None:
            self._check_index(self.index)
        if not self.tensors:
            raise VicunaError(f"{path} holds no tensors; fetch the checkpoint again")
        self._descriptors: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes `start` to `start + size` of a tensor (to its end by default)."""
        tensor = self.tensors[name]
        size = tensor.size_bytes - start if size is None else min(size, tensor.size_bytes - start)
        file_name, offset = self._places[name]
        if file_name not in self._descriptors:
            self._descriptors[file_name] = os.open(self.folder / file_name, os.O_RDONLY)
        parts, position = [], offset + start
        while size > 0:
            part = os.pread(self._descriptors[file_name], size, position)
            if not part:
                raise VicunaError(
                    f"{self.folder / file_name} became shorter while it was read; leave it alone meanwhile"
                )
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """A tensor's bytes in order, `chunk_bytes` at a time."""
        for start in range(0, self.tensors[name].size_bytes, chunk_bytes):
            yield self.read(name, start, chunk_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _read_folder(self) -> list[Shard]:
        if (self.folder / INDEX_NAME).is_file():
            self.index = (self.folder / INDEX_NAME).read_bytes()
            return [read_shard(self.folder / name) for name in sorted(set(self._weight_map(self.index).values()))]
        if (self.folder / SINGLE_NAME).is_file():
            return [read_shard(self.folder / SINGLE_NAME)]
        for name in PICKLE_NAMES:
            if (self.folder / name).is_file():
                raise VicunaError(
                    f"{self.folder / name} is a pickle checkpoint, which is not read; "
                    "load it once with transformers and save_pretrained() it as safetensors"
                )
        if not self.folder.is_dir():
            raise VicunaError(f"{self.folder} does not exist; give a Hugging Face model folder")
        raise VicunaError(f"{self.folder} has neither {SINGLE_NAME} nor {INDEX_NAME}; give a Hugging Face model folder")

    def _weight_map(self, index: bytes) -> dict[str, str]:
        path = self.folder / INDEX_NAME
        try:
            weight_map = json.loads(index.decode("utf-8"))["weight_map"]
            names = set(weight_map.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise VicunaError(f"{path} has no weight_map of tensor names to file names; fetch it again") from None
        for name in names:
            check_shard_name(name, str(path))
        return dict(weight_map)

    def _check_index(self, index: bytes) -> None:
        weight_map = self._weight_map(index)
        there = {name: place[0] for name, place in self._places.items()}
        if weight_map != there:
            name = min(set(weight_map.items()) ^ set(there.items()))[0]
            raise VicunaError(
                f"{self.folder / INDEX_NAME} and the shards disagree about tensor {name!r}: the index says "
                f"{weight_map.get(name, 'nothing')}, it is in {there.get(name, 'no shard')}; fetch the checkpoint again"
            )


def write_checkpoint(
    folder: Path, shards: Sequence[Shard], index: bytes | None, data_of: Callable[[Tensor], Iterable[bytes]]
) -> dict[str, str]:
    """Write planned shards, asking for one tensor's bytes after the other in the order of the plan.

    A shard gets its name when its last byte is on disk, and the index comes last.

    Returns:
        The SHA-256 of every shard, by file name.
    """
    digests = {}
    for shard in shards:
        check_shard_name(shard.file_name, "the plan")
        digest = hashlib.sha256()
        with atomic_file(folder / shard.file_name, "wb") as file:
            file.write(shard.preamble)
            digest.update(shard.preamble)
            for tensor in shard.tensors:
                size = 0
                for chunk in data_of(tensor):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                assert size == tensor.size_bytes, f"{tensor}: {size} bytes instead of {tensor.size_bytes}"
        digests[shard.file_name] = digest.hexdigest()
    if index is not None:
        with atomic_file(folder / INDEX_NAME, "wb") as file:
            file.write(index)
    return digests
