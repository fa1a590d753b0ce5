"""Parquet files to rows as JSON, within limits: a few bytes of such a file can stand for any number of long texts.

A page may name one text of its dictionary for every row, or one row of millions of values. So texts are read as what
they are in the file, numbers of a dictionary's entry, and a row is made only when its size is known.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from vicuna.data.read.arrays import MAX_RECORD_BYTES, TOO_LARGE
from vicuna.errors import require

READ_BYTES = 1 << 20
BATCH_ROWS = 64
BATCH_BYTES = 8 << 20  # a batch that is larger is made into rows one by one
MAX_COLUMN_BYTES = 128 << 20  # of a column's part in a row group, unpacked, where it is packed as no text can be
MAX_COLUMN_RATIO = 100  # of what is unpacked to what is packed, beyond which that holds
USUAL_BYTES, USUAL_RATIO = 1 << 20, 20  # of a row group that needs no care
MAX_COLUMN_VALUES = 16_000_000  # of a column's part in a row group; writers make groups of a million rows
VALUE_BYTES, KEY_BYTES = 1, 4  # that a value and a key take in JSON besides their texts, at the least
TEXTS = ("STRING", "NONE", "ENUM", "JSON")  # kinds of columns that can be read by their dictionaries
PARQUET = b"PAR1"  # how parquet files begin

Sizes = np.ndarray[tuple[int], np.dtype[np.int64]]


class TableError(Exception):
    """A parquet file that cannot be decoded, or is not worth it."""


def table_rows(file: IO[bytes], path: Path, progress: Callable[[int], None]) -> Iterator[tuple[str, bytes, str | None]]:
    """The rows of a parquet file: the place of each, the JSON that it would have been, and why it is left out.

    Raises:
        TableError: the file is damaged, or would take more memory than its content is worth.
    """
    parquet, arrow = require("pyarrow.parquet", "data"), require("pyarrow", "data")
    size, number = path.stat().st_size, 0
    try:
        plain = parquet.ParquetFile(file, buffer_size=READ_BYTES)
        metadata = plain.metadata
        _check(metadata)
        total = max(1, metadata.num_rows)
        by_dictionary = parquet.ParquetFile(file, buffer_size=READ_BYTES, read_dictionary=_texts(metadata))
        for group in range(metadata.num_row_groups):
            # By dictionaries it takes 24 ms a megabyte more, a tenth of a cleaning; so what is usual is read as it is.
            table = plain if _is_usual(metadata.row_group(group), metadata.num_columns) else by_dictionary
            for batch in table.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False):
                for row in _rows(batch):
                    number += 1
                    data = b"" if row is None else json.dumps(_without_nulls(row), default=str).encode("ascii")
                    yield f"row {number}", data, TOO_LARGE if row is None else None
                progress(size * number // total)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(" ".join(str(error).split())) from None
    if not number:
        yield "the whole file", b"", "the file is empty"


def _columns(metadata: Any) -> Iterator[Any]:
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            yield metadata.row_group(group).column(column)


def _check(metadata: Any) -> None:
    for column in _columns(metadata):
        unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
        if column.num_values > MAX_COLUMN_VALUES:
            raise TableError(
                f"column {column.path_in_schema!r} has {column.num_values:,} values in a row group, and "
                f"{MAX_COLUMN_VALUES:,} are taken; write it in smaller groups"
            )
        if unpacked > MAX_COLUMN_BYTES and unpacked > MAX_COLUMN_RATIO * packed:
            raise TableError(
                f"column {column.path_in_schema!r} unpacks to {unpacked:,} bytes, more than {MAX_COLUMN_RATIO} times "
                "its size, which is no text"
            )


def _is_usual(group: Any, num_columns: int) -> bool:
    """Whether no value of a row group can be much larger than the file is."""
    columns = [group.column(index) for index in range(num_columns)]
    unpacked = sum(column.total_uncompressed_size for column in columns)
    packed = sum(column.total_compressed_size for column in columns)
    return bool(unpacked <= USUAL_BYTES or (packed >= USUAL_BYTES and unpacked <= USUAL_RATIO * packed))


def _texts(metadata: Any) -> list[str]:
    """The paths of the columns of texts."""
    columns = (metadata.schema.column(index) for index in range(metadata.num_columns))
    return [
        column.path for column in columns if column.physical_type == "BYTE_ARRAY" and column.logical_type.type in TEXTS
    ]


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for one that is too large."""
    sizes = sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    if int(sizes.sum()) <= BATCH_BYTES and int(sizes.max(initial=0)) <= MAX_RECORD_BYTES:
        yield from batch.to_pylist()
        return
    for place, size in enumerate(sizes.tolist()):
        yield None if size > MAX_RECORD_BYTES else batch.slice(place, 1).to_pylist()[0]


def _sizes(array: Any) -> Sizes:
    """(N,) bytes that each value takes in JSON, at the least."""
    arrow, compute = require("pyarrow", "data"), require("pyarrow.compute", "data")
    kind, own = array.type, np.full(len(array), VALUE_BYTES, np.int64)
    if arrow.types.is_dictionary(kind) and len(array.dictionary):
        own += _sizes(array.dictionary)[array.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if arrow.types.is_struct(kind):
        own += sum(len(field.name) + KEY_BYTES for field in kind)
        for part in array.flatten():
            own += _sizes(part)
    if arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_map(kind):
        offsets = array.offsets.to_numpy().astype(np.int64)
        first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        parts = (array.keys, array.items) if arrow.types.is_map(kind) else (array.values,)
        ends = np.zeros(last - first + 1, np.int64)
        for part in parts:
            ends[1:] += np.cumsum(_sizes(part.slice(first, last - first)))
        own += ends[offsets[1:] - first] - ends[offsets[:-1] - first]
    if arrow.types.is_fixed_size_list(kind):
        own += VALUE_BYTES * kind.list_size
    texts = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_binary, arrow.types.is_large_binary)
    if any(is_text(kind) for is_text in texts):
        own += compute.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return own


def _without_nulls(row: Any) -> Any:
    """A row without the keys that are null in it, which parquet adds because other rows have them."""
    return {key: value for key, value in row.items() if value is not None}
