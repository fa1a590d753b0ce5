"""One `.bin` file of PyTorch: which tensors it holds, and where their bytes are in it.

Stands on `pickle_program`, which interprets the file's pickle without running it; `checkpoint` reads the bytes in
chunks, as it does with safetensors. A file is a zip archive with one uncompressed entry for each storage (PyTorch 1.6
and later), or five pickles followed by the storages (before). Both layouts: pytorch `torch/serialization.py`, `_save`
and `_legacy_save`.
"""

import io
import math
import os
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vicuna.errors import VerificationError, VicunaError
from vicuna.io.model_files import shown
from vicuna.io.terminal import printable
from vicuna.weights.files.pickle_program import PickleMachine, RefusedError, View
from vicuna.weights.files.tensors import ELEMENT_BYTES, MAX_TENSOR_NAME_CHARACTERS, Tensor

MAX_PROGRAM_BYTES = 64 << 20  # of the pickle, which has no weights in it
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MALFORMED = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, NotImplementedError,
    RuntimeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
BIG_ENDIAN = "was written on a big-endian machine; save it again on another one"

Storages = dict[str, tuple[int, int]]  # key -> first byte in the file, size in bytes


@dataclass(frozen=True)
class Location:
    """Where a tensor is in its file: the byte of its first element, and its strides in elements unless contiguous."""

    offset: int
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PickledShard:
    """One `.bin` file: its name, its tensors in their order, and their locations by name."""

    file_name: str
    tensors: tuple[Tensor, ...]
    locations: dict[str, Location]


def read_pickled(path: Path) -> PickledShard:
    """Find the tensors of one `.bin` file; their bytes stay on disk, and nothing of it is run.

    Raises:
        VerificationError: the file is missing or damaged.
        VicunaError: it asks for more than a state dict needs.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            views, storages = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        tensors = tuple(Tensor(name, view.dtype, view.shape) for name, view in views.items())
        places = {tensor.name: _locate(tensor, views[tensor.name], storages, size) for tensor in tensors}
    except (FileNotFoundError, IsADirectoryError):
        raise VerificationError(f"{path} is missing; fetch the checkpoint again") from None
    except RefusedError as refusal:
        raise VicunaError(f"{path} {refusal}; do not trust this file") from None
    except MALFORMED as error:
        reason = printable(" ".join(str(error)[:1000].split()) or type(error).__name__, limit=300)
        raise VerificationError(f"{path} is damaged or no PyTorch checkpoint ({reason}); fetch it again") from None
    return PickledShard(path.name, tensors, places)


def _locate(tensor: Tensor, view: View, storages: Storages, file_bytes: int) -> Location:
    """The tensor's location, checked against its storage and the file's size."""
    if len(tensor.name) > MAX_TENSOR_NAME_CHARACTERS or not tensor.name.isprintable():
        raise ValueError(f"the tensor name {shown(tensor.name)} is too long, or has characters that no model uses")
    start, size = storages[view.storage.key]
    width = ELEMENT_BYTES[view.dtype]
    end = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True)) + 1
    if tensor.size_bytes and (end * width > size or start + size > file_bytes):
        raise ValueError(f"tensor {tensor} reaches beyond the {size} bytes of its storage")
    rows = [math.prod(view.shape[i + 1 :]) for i in range(len(view.shape))]
    is_plain = all(n == 1 or stride == row for n, stride, row in zip(view.shape, view.strides, rows, strict=True))
    return Location(start + view.offset * width, None if is_plain or not tensor.size_bytes else view.strides)


def _read_zip(file: IO[bytes]) -> tuple[dict[str, View], Storages]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    programs = [name for name in entries if re.fullmatch(r"[^/]*/data\.pkl", name)]
    if len(programs) != 1:
        raise ValueError(f"{len(programs)} entries data.pkl instead of one")
    root = programs[0].removesuffix("data.pkl")
    if (order := entries.get(f"{root}byteorder")) and _entry(file, order, 16) != b"little":
        raise RefusedError(BIG_ENDIAN)
    storages = {
        name.removeprefix(f"{root}data/"): (_entry_offset(file, entry), entry.file_size)
        for name, entry in entries.items()
        if name.startswith(f"{root}data/")
    }
    program = io.BytesIO(_entry(file, entries[programs[0]], MAX_PROGRAM_BYTES))
    return _state_dict(PickleMachine().execute(program)), storages


def _entry_offset(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its local header, whose size that header says."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise ValueError(f"{entry.filename} is compressed or encrypted")
    if entry.header_offset < 0:  # zipfile subtracts what lies before the archive
        raise ValueError(f"{entry.filename} lies before the file")
    file.seek(entry.header_offset)
    magic, name_bytes, extra_bytes = struct.unpack("<4s22xHH", file.read(30))
    if magic != b"PK\3\4":
        raise ValueError(f"{entry.filename} is not where the archive says")
    return entry.header_offset + 30 + int(name_bytes) + int(extra_bytes)


def _entry(file: IO[bytes], entry: zipfile.ZipInfo, max_bytes: int) -> bytes:
    if entry.file_size > max_bytes:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes")
    file.seek(_entry_offset(file, entry))
    data = file.read(entry.file_size)
    if len(data) != entry.file_size:
        raise ValueError(f"{entry.filename} is cut short")
    return data


def _read_legacy(file: IO[bytes]) -> tuple[dict[str, View], Storages]:
    file.seek(0)
    if file.read(2) != b"\x80\x02":
        raise ValueError("it begins like neither of PyTorch's formats")
    file.seek(0)
    if PickleMachine().execute(file) != LEGACY_MAGIC:
        raise ValueError("its magic number is wrong")
    PickleMachine().execute(file)  # the protocol's version
    if not PickleMachine().execute(file)["little_endian"]:
        raise RefusedError(BIG_ENDIAN)
    machine = PickleMachine()
    views = _state_dict(machine.execute(file))
    storages = {}
    for key in PickleMachine().execute(file):
        storage = machine.storages[key]
        if (count := int.from_bytes(file.read(8), "little")) != storage.num_elements:
            raise ValueError(f"storage {key} has {count} elements instead of {storage.num_elements}")
        size = count * ELEMENT_BYTES[storage.dtype]
        storages[key] = (file.tell(), size)
        file.seek(size, os.SEEK_CUR)
    return views, storages


def _state_dict(value: object) -> dict[str, View]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} instead of a dictionary of tensors")
    for name, view in value.items():
        if not isinstance(name, str) or not isinstance(view, View):
            raise ValueError(f"it holds a {type(view).__name__} under {name!r}; a state dict has tensors only")
    return value
