"""One GGUF file: reading its header, checked before it is used, and writing files as streams.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: `GGUF`, version, number of
tensors, number of metadata entries; the entries (key, type, value); a line per tensor (name, dimensions with the row
length first, type, offset); then, aligned, the tensors' bytes. A count, a length or an
offset that the file's size contradicts is refused before anything of that size is read.
"""

import enum
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from vicuna.errors import VicunaError
from vicuna.io.files import atomic_file
from vicuna.weights.gguf.types import GGMLType

MAGIC, VERSION = b"GGUF", 3
READ_VERSIONS = (2, 3)  # 3 only added big-endian files
ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_NAME_BYTES = 63  # GGML_MAX_NAME, less the zero at its end
MAX_DIMENSIONS = 4
MIN_ENTRY_BYTES, MIN_TENSOR_BYTES = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8


class ValueType(enum.IntEnum):
    """The types of metadata, by their number in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


STRUCT_FORMATS = {
    ValueType.UINT8: "B", ValueType.INT8: "b", ValueType.UINT16: "H", ValueType.INT16: "h", ValueType.UINT32: "I",
    ValueType.INT32: "i", ValueType.FLOAT32: "f", ValueType.BOOL: "B", ValueType.UINT64: "Q", ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A metadata value to write: of a scalar type, or a list of `element`."""

    type: ValueType
    value: Any
    element: ValueType | None = None


def uint32(value: int) -> Value:
    """A size, a count or an id."""
    return Value(ValueType.UINT32, value)


def float32(value: float) -> Value:
    """A number; stored with seven digits."""
    return Value(ValueType.FLOAT32, value)


def boolean(value: bool) -> Value:
    """Yes or no."""
    return Value(ValueType.BOOL, value)


def string(value: str) -> Value:
    """Text, stored as UTF-8."""
    return Value(ValueType.STRING, value)


def array(element: ValueType, values: Sequence[Any]) -> Value:
    """A list of values of one type."""
    return Value(ValueType.ARRAY, values, element)


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor's entry in a header.

    Attributes:
        shape: rows first, as in Hugging Face models (a file has the dimensions reversed).
        offset: counts from the start of the file's data.
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) // self.type.block_size * self.type.block_bytes

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.block_size * self.type.block_bytes

    def __str__(self) -> str:
        return f"{self.name} {self.type.name} [{', '.join(map(str, self.shape))}]"


class GGUFFile:
    """A GGUF file's metadata and tensors. Use as a context manager.

    Raises:
        VicunaError: the file is missing, cut short or not GGUF, or its header contradicts it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                header = _HeaderReader(path, file)
                self.metadata = header.metadata()
                infos = header.tensors()
        except (FileNotFoundError, IsADirectoryError):
            raise VicunaError(f"{path}: no such file; give a GGUF file") from None
        self._start = _aligned(header.position, header.alignment)
        check_layout(infos, header.size - self._start, header.alignment, header.fail)
        self.tensors = {tensor.name: tensor for tensor in infos}
        self._descriptor: int | None = None

    def read(self, name: str, first_row: int = 0, num_rows: int | None = None) -> bytes:
        """The bytes of a tensor's rows (of all by default)."""
        tensor = self.tensors[name]
        rows = math.prod(tensor.shape[:-1])
        num_rows = rows - first_row if num_rows is None else min(num_rows, rows - first_row)
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        size, parts = num_rows * tensor.row_bytes, []
        position = self._start + tensor.offset + first_row * tensor.row_bytes
        while size:
            part = os.pread(self._descriptor, size, position)
            if not part:
                raise VicunaError(f"{self.path} became shorter while it was read; leave it alone meanwhile")
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _HeaderReader:
    """Reads a header from its start, and nothing beyond the end of the file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.alignment = ALIGNMENT
        if self._take(4, "its first bytes") != MAGIC:
            self.fail("it does not begin with GGUF")
        version = self._number("I")
        if version not in READ_VERSIONS:
            swapped = version & 0xFFFF == 0 and version != 0
            self.fail("it is big-endian" if swapped else f"it is version {version} (read: 2 and 3)")
        self._num_tensors, self._num_entries = self._number("Q"), self._number("Q")
        self._check_count(self._num_entries, MIN_ENTRY_BYTES, "metadata entries")
        self._check_count(self._num_tensors, MIN_TENSOR_BYTES, "tensors")

    def fail(self, reason: str) -> NoReturn:
        raise VicunaError(f"{self._path} is damaged or not a GGUF file that is read: {reason}; fetch it again")

    def metadata(self) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for _ in range(self._num_entries):
            key = self._string("a key")
            if key in entries:
                self.fail(f"the key {key!r} occurs twice")
            entries[key] = self._value(self._type(key), key)
        alignment = entries.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self.fail(f"its alignment is {alignment!r}, which is no power of two up to {MAX_ALIGNMENT}")
        self.alignment = alignment
        return entries

    def tensors(self) -> list[GGUFTensor]:
        found: dict[str, GGUFTensor] = {}
        for _ in range(self._num_tensors):
            name = self._string("a tensor's name")
            if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES or name in found:
                self.fail(f"the tensor name {name[:80]!r} is empty, too long, there twice or not printable")
            dimensions = self._number("I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                self.fail(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
            number, offset = self._number("I"), self._number("Q")
            if number not in GGMLType.by_number():
                self.fail(f"tensor {name!r} is of type {number}, which is not known")
            tensor = GGUFTensor(name, GGMLType.by_number()[number], shape, offset)
            if min(shape) < 1 or shape[-1] % tensor.type.block_size:
                self.fail(f"tensor {tensor} cannot be: a row is cut into blocks of {tensor.type.block_size}")
            found[name] = tensor
        return list(found.values())

    def _type(self, key: str) -> ValueType:
        number = self._number("I")
        try:
            return ValueType(number)
        except ValueError:
            self.fail(f"{key!r} is of type {number}, which is not known")

    def _value(self, kind: ValueType, key: str) -> Any:
        if kind == ValueType.STRING:
            return self._string(f"the value of {key!r}")
        if kind != ValueType.ARRAY:
            return self._scalars(kind, 1, key)[0]
        element, count = self._type(key), self._number("Q")
        if element == ValueType.ARRAY:
            self.fail(f"{key!r} is a list of lists")
        if element == ValueType.STRING:
            self._check_count(count, 8, f"texts in {key!r}")
            return [self._string(f"a text of {key!r}") for _ in range(count)]
        return self._scalars(element, count, key)

    def _scalars(self, kind: ValueType, count: int, key: str) -> list[Any]:
        width = struct.calcsize(STRUCT_FORMATS[kind])
        self._check_count(count, width, f"values in {key!r}")
        values = list(struct.unpack(f"<{count}{STRUCT_FORMATS[kind]}", self._take(count * width, f"{key!r}")))
        return [bool(value) for value in values] if kind == ValueType.BOOL else values

    def _string(self, what: str) -> str:
        data = self._take(self._number("Q"), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")

    def _number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self._take(struct.calcsize(code), "a number"))[0])

    def _check_count(self, count: int, least_bytes: int, what: str) -> None:
        if count * least_bytes > self.size - self.position:
            self.fail(f"it claims {count} {what}, more than its {self.size} bytes can hold")

    def _take(self, size: int, what: str) -> bytes:
        if size > self.size - self.position:
            self.fail(f"it ends at byte {self.size}, inside {what}")
        data = self._file.read(size)
        self.position += len(data)
        if len(data) != size:
            self.fail(f"it became shorter while it was read, inside {what}")
        return data


def check_layout(
    tensors: Iterable[GGUFTensor], data_bytes: int, alignment: int, fail: Callable[[str], NoReturn]
) -> None:
    """See that every tensor lies inside the data, aligned, and that none overlap; `fail` raises."""
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.name)):
        if tensor.offset % alignment:
            fail(f"tensor {tensor.name!r} starts at byte {tensor.offset}, which is not a multiple of {alignment}")
        if tensor.offset < position:
            fail(f"tensor {tensor.name!r} starts at byte {tensor.offset}, inside another")
        position = tensor.offset + tensor.size_bytes
        if position > data_bytes:
            fail(f"tensor {tensor} would end at byte {position} of the data, the file has {max(data_bytes, 0)}")


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    tensors: Sequence[GGUFTensor],
    data_of: Callable[[GGUFTensor], Iterable[bytes]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a file, asking for one tensor's bytes after the other. It gets its name when its last byte is on disk.

    Raises:
        VicunaError: `path` exists and `overwrite` is false.
    """
    positioned = assign_offsets(tensors)
    with atomic_file(path, "wb", overwrite=overwrite) as file:
        header = build_header(metadata, positioned)
        file.write(header + bytes(_aligned(len(header), ALIGNMENT) - len(header)))
        for tensor in positioned:
            size = 0
            for chunk in data_of(tensor):
                file.write(chunk)
                size += len(chunk)
            assert size == tensor.size_bytes, f"{tensor}: {size} bytes instead of {tensor.size_bytes}"
            file.write(bytes(_aligned(size, ALIGNMENT) - size))


def assign_offsets(tensors: Iterable[GGUFTensor]) -> list[GGUFTensor]:
    """The tensors with their offsets in the file: one after the other, aligned."""
    positioned: list[GGUFTensor] = []
    position = 0
    for tensor in tensors:
        assert len(tensor.name.encode()) <= MAX_NAME_BYTES, tensor.name
        positioned.append(GGUFTensor(tensor.name, tensor.type, tensor.shape, position))
        position += _aligned(tensor.size_bytes, ALIGNMENT)
    return positioned


def build_header(metadata: Mapping[str, Value], tensors: Sequence[GGUFTensor]) -> bytes:
    """The file's bytes before the data, without the padding between."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), struct.pack("<I", value.type), _packed(value)]
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        parts += [_text(tensor.name), struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)]
        parts.append(struct.pack("<IQ", tensor.type.number, tensor.offset))
    return b"".join(parts)


def _packed(value: Value) -> bytes:
    if value.type == ValueType.STRING:
        return _text(value.value)
    if value.type != ValueType.ARRAY:
        return struct.pack(f"<{STRUCT_FORMATS[value.type]}", value.value)
    assert value.element is not None
    head = struct.pack("<IQ", value.element, len(value.value))
    if value.element == ValueType.STRING:
        return head + b"".join(map(_text, value.value))
    return head + struct.pack(f"<{len(value.value)}{STRUCT_FORMATS[value.element]}", *value.value)


def _text(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise VicunaError(
            f"the text {text[:60]!r} is no Unicode, which GGUF needs; correct it in the model's files"
        ) from None
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int, alignment: int) -> int:
    return size + -size % alignment
