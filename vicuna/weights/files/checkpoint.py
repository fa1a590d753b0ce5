"""Hugging Face checkpoints (safetensors or `.bin`, single or sharded) read and written as streams, without torch.

Stands on `tensors` (one safetensors file) and `pickled` (one `.bin` file). Memory stays at one chunk whatever the
model's size, and whatever a file says is checked before it is used: an index may name a file outside its folder, a
header may give wrong sizes, a pickle may call functions. A sharded model has `model.safetensors.index.json` (or
`pytorch_model.bin.index.json`), which holds `{"weight_map": {tensor: file}}`, beside its shards. What is written is
always safetensors.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.errors import VerificationError, VicunaError, require
from vicuna.io.files import atomic_file
from vicuna.io.model_files import read_model_bytes, read_model_json
from vicuna.weights.files.pickled import Location, read_pickled
from vicuna.weights.files.tensors import (
    ELEMENT_BYTES,
    SINGLE_FILE_NAME,
    Shard,
    Tensor,
    build_index,
    build_shard,
    check_shard_name,
    read_shard,
)

CHUNK_BYTES = 4 << 20
MAX_INDEX_BYTES, MAX_INDEX_PARTS = 128 << 20, 2_000_000  # a tensor of a model of 91,000 takes 130 bytes
INDEX_NAME, PICKLED_INDEX_NAME = "model.safetensors.index.json", "pytorch_model.bin.index.json"
# The first of these that a folder has is read.
WEIGHT_NAMES = (INDEX_NAME, SINGLE_FILE_NAME, PICKLED_INDEX_NAME, "pytorch_model.bin")


class CheckpointReader:
    """A model's tensors by name, whichever file they lie in. Use as a context manager.

    Args:
        path: a Hugging Face model folder, or one file of weights (safetensors or `.bin`).

    Attributes:
        tensors: their entries in the headers, by name.
        files: the files, in the order of their names.
        shards, index: the files' own headers and index (safetensors), or those of the same model as safetensors (a
            `.bin` checkpoint), tensor by tensor in the same order.
        is_pickled: whether the files are `.bin` files.
        aliases: second names of a tensor, each with its first name: tied weights, which a `.bin` file holds once.

    Raises:
        VerificationError: the checkpoint is damaged or incomplete.
        VicunaError: there is none, or it is of a kind that is not read.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        self.path = path
        self.folder = path.parent if path.is_file() else path
        index_name, names = (None, [path.name]) if path.is_file() else _find_files(path)
        self.is_pickled = (index_name or names[0]).endswith((".bin", PICKLED_INDEX_NAME))
        self.files = [self.folder / name for name in names]
        self.tensors: dict[str, Tensor] = {}
        self.aliases: dict[str, str] = {}
        self._locations: dict[str, tuple[Path, Location]] = {}
        self._descriptors: dict[Path, int] = {}
        self.index: bytes | None = None
        self.shards = [self._add_pickled(file) if self.is_pickled else self._add(file) for file in self.files]
        if index_name is not None:
            self._check_index(read_index(self.folder / index_name), index_name)
            self.index = (
                build_index(self.shards)
                if self.is_pickled
                else read_model_bytes(self.folder / index_name, MAX_INDEX_BYTES)
            )
        if not self.tensors:
            raise VicunaError(f"{path} holds no tensors; fetch the checkpoint again")

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes `start` to `start + size` of a tensor (to its end by default)."""
        tensor = self.tensors[name]
        size = tensor.size_bytes - start if size is None else min(size, tensor.size_bytes - start)
        file, place = self._locations[name]
        if place.strides is not None:
            return self._gather(tensor, file, place, start, size)
        if file not in self._descriptors:
            self._descriptors[file] = os.open(file, os.O_RDONLY)
        parts, position = [], place.offset + start
        while size > 0:
            part = os.pread(self._descriptors[file], size, position)
            if not part:
                raise VerificationError(f"{file} became shorter while it was read; leave it alone meanwhile")
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._locations[name][0]

    def chunks(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """A tensor's bytes in order, `chunk_bytes` at a time."""
        for start in range(0, self.tensors[name].size_bytes, chunk_bytes):
            yield self.read(name, start, chunk_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _add(self, file: Path) -> Shard:
        shard = read_shard(file)
        for tensor in shard.tensors:
            self._add_tensor(tensor, file, Location(len(shard.preamble) + tensor.offset))
        return shard

    def _add_pickled(self, file: Path) -> Shard:
        pickled = read_pickled(file)
        first: dict[tuple[str, tuple[int, ...], Location], str] = {}
        for tensor in pickled.tensors:
            place = pickled.locations[tensor.name]
            self._add_tensor(tensor, file, place)
            first_name = first.setdefault((tensor.dtype, tensor.shape, place), tensor.name)
            if first_name != tensor.name and tensor.size_bytes:
                self.aliases[tensor.name] = first_name
        name = file.name.removesuffix(".bin").replace("pytorch_model", "model") + ".safetensors"
        return build_shard(name, pickled.tensors)

    def _add_tensor(self, tensor: Tensor, file: Path, place: Location) -> None:
        if tensor.name in self.tensors:
            both = f"{self._locations[tensor.name][0].name} and {file.name}"
            raise VerificationError(f"{self.folder}: tensor {tensor.name!r} is in {both}; fetch the checkpoint again")
        self.tensors[tensor.name] = tensor
        self._locations[tensor.name] = (file, place)

    def _gather(self, tensor: Tensor, file: Path, place: Location, start: int, size: int) -> bytes:
        """`read` for a tensor whose elements are not contiguous in its file, such as a transposed one."""
        numpy = require("numpy", "export")
        width = ELEMENT_BYTES[tensor.dtype]
        extent = sum((n - 1) * stride for n, stride in zip(tensor.shape, place.strides or (), strict=True)) + 1
        numbers = numpy.memmap(file, f"V{width}", "r", place.offset, (extent,))
        strides = [stride * width for stride in place.strides or ()]
        view = numpy.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
        first, last = start // width, -(-(start + size) // width)
        data: bytes = view.flat[first:last].tobytes()
        return data[start - first * width :][:size]

    def _check_index(self, weight_map: dict[str, str], index_name: str) -> None:
        found = {name: file.name for name, (file, _) in self._locations.items()}
        if weight_map != found:
            name = min(set(weight_map.items()) ^ set(found.items()))[0]
            raise VerificationError(
                f"{self.folder / index_name} and the shards disagree about tensor {name!r}: the index says "
                f"{weight_map.get(name, 'nothing')}, it is in {found.get(name, 'no shard')}; fetch the checkpoint again"
            )


def check_exists(path: Path, wanted: str) -> None:
    """See that there is a file or folder of this name.

    Args:
        wanted: what the message asks for instead, such as "a Hugging Face model folder".

    Raises:
        VicunaError: there is none.
    """
    if not path.exists():
        raise VicunaError(f"{path}: no such folder; give {wanted}")


def has_weights(folder: Path) -> bool:
    """Is a checkpoint of a kind that is read in this folder? Nothing is opened."""
    return any((folder / name).is_file() for name in WEIGHT_NAMES)


def require_safetensors(path: Path | str) -> None:
    """See that a checkpoint is in safetensors files.

    Raises:
        VicunaError: it is in `.bin` files, and the message says how to convert it; or there is no checkpoint.
    """
    with CheckpointReader(path) as reader:
        if reader.is_pickled:
            raise VicunaError(
                f"{path} holds {reader.files[0].name} and no safetensors; "
                f"convert it first: vicuna weights cast {path} --target NEW_FOLDER"
            )


def _find_files(folder: Path) -> tuple[str | None, list[str]]:
    """The index's name, if the weights have one, and the names of their files."""
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            if name.endswith(".json"):
                return name, sorted(set(read_index(folder / name).values()))
            return None, [name]
    check_exists(folder, "a Hugging Face model folder")
    if (folder / "adapter_config.json").is_file():
        raise VicunaError(f"{folder} is a LoRA adapter, not a model; merge it first: vicuna weights merge-lora")
    if any(folder.glob("consolidated.*.pth")):
        raise VicunaError(
            f"{folder} is in the original LLaMA layout (consolidated.00.pth); "
            "make a Hugging Face model of it with transformers' convert_llama_weights_to_hf.py"
        )
    raise VicunaError(f"{folder} has none of {', '.join(WEIGHT_NAMES)}; give a Hugging Face model folder")


def read_index(path: Path) -> dict[str, str]:
    """The file of each tensor, by the index of a sharded checkpoint.

    Raises:
        VerificationError: it is damaged, or names a file that is no shard beside it.
    """
    suffix = ".bin" if path.name == PICKLED_INDEX_NAME else ".safetensors"
    try:
        value = read_model_json(path, max_bytes=MAX_INDEX_BYTES, max_parts=MAX_INDEX_PARTS)
        weight_map = value["weight_map"]
        names = set(weight_map.values())
    except VicunaError as error:
        raise VerificationError(str(error)) from None
    except (KeyError, TypeError, AttributeError):
        raise VerificationError(f"{path} has no weight_map of tensor names to file names; fetch it again") from None
    for name in names:
        check_shard_name(name, str(path), suffix)
    return dict(weight_map)


def write_checkpoint(
    folder: Path,
    shards: Sequence[Shard],
    index: bytes | None,
    data_of: Callable[[Tensor], Iterable[bytes | memoryview]],
) -> dict[str, str]:
    """Write shards, asking `data_of` for one tensor's bytes after the other in the order of the files.

    A shard gets its name when its last byte is on disk, and the index comes last.

    Returns:
        The SHA-256 of every shard, by file name.
    """
    digests = {}
    for shard in shards:
        check_shard_name(shard.file_name, "the caller")
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
