"""One safetensors file: its header, checked before it is used; and how a model's tensors are split into such files.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON header
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {..}}`, then the tensors' bytes without holes.
`checkpoint` reads and writes whole models of such files; there each file is a shard.
"""

import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import VerificationError, VicunaError
from vicuna.io.files import MAX_NAME_BYTES, checked_name
from vicuna.io.jsonl import JsonObject
from vicuna.io.model_files import shown
from vicuna.io.terminal import printable

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
MAX_HEADER_PARTS = 8_000_000  # objects, lists and numbers in it; a tensor takes some 8
MAX_TENSORS = 250_000  # of a file
MAX_DIMENSIONS = 64  # of a tensor, as in torch and numpy
MAX_TENSOR_BYTES = 2**63 - 1
MAX_TENSOR_NAME_CHARACTERS = 512
MAX_SHARD_BYTES = 5 * 10**9  # what transformers writes by default
SINGLE_FILE_NAME = "model.safetensors"
ELEMENT_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = ("F16", "BF16", "F32")  # dtypes of weights: differences are taken of these, and casts to these
ROPE_BUFFER_SUFFIX = "rotary_emb.inv_freq"  # a buffer that old checkpoints hold; it follows from the configuration

Buffer = bytes | memoryview  # of single bytes


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry in a header. `offset`: its first byte, from the start of the file's data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint: its name, its exact header bytes, its tensors in the order of their data."""

    file_name: str
    header: bytes
    tensors: tuple[Tensor, ...]

    @property
    def preamble(self) -> bytes:
        """The file's bytes before the data: the header and its length."""
        return len(self.header).to_bytes(8, "little") + self.header

    @property
    def size_bytes(self) -> int:
        """The whole file's size."""
        return len(self.preamble) + sum(tensor.size_bytes for tensor in self.tensors)


def parse_header(header: bytes, data_bytes: int | None, where: str) -> tuple[Tensor, ...]:
    """The tensors of a safetensors header, in the order of their data.

    Args:
        header: the JSON bytes.
        data_bytes: how many bytes of data follow it in the file, or None when there is no file yet.
        where: what to call the file in a message.

    Raises:
        VerificationError: the header is not what the format allows, or does not fit the file.
    """

    def fail(reason: str) -> VerificationError:
        return VerificationError(f"{where} is damaged or not safetensors: {reason}; fetch or write the file again")

    if (num_tables := header.count(b"{")) > MAX_TENSORS + 2:  # its own and that of __metadata__
        raise fail(f"its header names some {num_tables:,} tensors, and {MAX_TENSORS:,} are taken")
    num_parts = header.count(b"[") + header.count(b"{") + header.count(b",")
    if num_parts > MAX_HEADER_PARTS:  # each takes tens of bytes of memory, whatever it says
        raise fail(f"its header has some {num_parts:,} values, and {MAX_HEADER_PARTS:,} are taken")
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_object_of_unique_names)
    except (ValueError, RecursionError) as error:
        raise fail(f"its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise fail("its header is not a JSON object")
    tensors = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        if len(name) > MAX_TENSOR_NAME_CHARACTERS or not name.isprintable():
            raise fail(f"the tensor name {_shown(name)} is too long, or has characters that no model uses")
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            is_plain = isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS
            is_plain = is_plain and all(type(n) is int and 0 <= n <= MAX_TENSOR_BYTES for n in [*shape, begin, end])
        except (TypeError, KeyError, ValueError):
            is_plain = False
        if not is_plain:
            raise fail(
                f"the entry of tensor {name!r} is not a dtype, a shape and two offsets, but {_shown(entry)} "
                f"(a shape has at most {MAX_DIMENSIONS} numbers, a number is at most {MAX_TENSOR_BYTES:,})"
            )
        if dtype not in ELEMENT_BYTES:
            raise fail(f"tensor {name!r} has dtype {_shown(dtype)} (known: {', '.join(ELEMENT_BYTES)})")
        tensor = Tensor(name, dtype, tuple(shape), begin)
        if tensor.size_bytes > MAX_TENSOR_BYTES:
            raise fail(f"tensor {_shown(tensor)} would have more than {MAX_TENSOR_BYTES:,} bytes")
        if end - begin != tensor.size_bytes:
            raise fail(f"tensor {tensor} should have {tensor.size_bytes} bytes, its offsets say {end - begin}")
        tensors.append(tensor)
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.size_bytes))
    position = 0
    for tensor in tensors:
        if tensor.offset != position:
            raise fail(f"tensor {tensor.name!r} starts at byte {tensor.offset} of the data, not at {position}")
        position += tensor.size_bytes
    if data_bytes is not None and position != data_bytes:
        raise fail(f"its header describes {position} bytes of data, the file holds {data_bytes}")
    return tuple(tensors)


def _shown(value: object) -> str:
    return shown(reprlib.repr(value) if isinstance(value, list | dict) else value)


def _object_of_unique_names(pairs: list[tuple[str, Any]]) -> JsonObject:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def read_shard(path: Path) -> Shard:
    """Read and check one safetensors file's header; the data stays on disk.

    Raises:
        VerificationError: the file is missing or cut short, or its header contradicts it.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise VerificationError(
                    f"{path} is damaged or not safetensors: {size} bytes cannot hold its header; fetch it again"
                )
            header = file.read(length)
    except (FileNotFoundError, IsADirectoryError):
        raise VerificationError(f"{path} is missing; fetch the checkpoint again") from None
    return Shard(path.name, header, parse_header(header, size - 8 - length, str(path)))


def check_shard_name(name: object, where: str, suffix: str = ".safetensors") -> str:
    """The name of a shard's file, if it is a plain one that cannot lead out of its folder.

    Raises:
        VerificationError: it is not, or does not end in `suffix`.
    """
    try:
        plain = checked_name(name, where)
    except VicunaError:
        plain = ""
    if not plain.endswith(suffix) or plain.startswith("."):
        shown = printable(str(name), limit=MAX_NAME_BYTES)
        raise VerificationError(f"{where} names the shard {shown!r}, no plain {suffix} file name; do not trust it")
    return plain


def split_into_shards(
    tensors: Iterable[Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES, metadata: Mapping[str, str] | None = None
) -> tuple[list[Shard], bytes | None]:
    """The files of a checkpoint of these tensors: at most `max_shard_bytes` of data each, or one larger tensor.

    Args:
        metadata: `__metadata__` of every header; what transformers writes by default.

    Returns:
        The shards, and the index file's bytes (None for a single file).
    """
    groups: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.size_bytes > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.size_bytes
    count = len(groups)
    names = (
        [SINGLE_FILE_NAME] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    )
    shards = [build_shard(name, group, metadata) for name, group in zip(names, groups, strict=True)]
    return shards, build_index(shards) if count > 1 else None


def build_shard(name: str, tensors: Iterable[Tensor], metadata: Mapping[str, str] | None = None) -> Shard:
    """One file that holds these tensors in this order; `metadata` as in `split_into_shards`."""
    entries, filled = [], 0
    for tensor in tensors:
        entries.append(dataclasses.replace(tensor, offset=filled))
        filled += tensor.size_bytes
    return Shard(name, _build_header(entries, {"format": "pt"} if metadata is None else metadata), tuple(entries))


def _build_header(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: JsonObject = {"__metadata__": dict(metadata)} if metadata else {}
    for tensor in tensors:
        offsets = [tensor.offset, tensor.offset + tensor.size_bytes]
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # so that the data starts aligned


def build_index(shards: Iterable[Shard]) -> bytes:
    """The bytes of `model.safetensors.index.json`."""
    shards = list(shards)
    total = sum(tensor.size_bytes for shard in shards for tensor in shard.tensors)
    weight_map = {tensor.name: shard.file_name for shard in shards for tensor in shard.tensors}
    value = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(value, indent=2) + "\n").encode()
