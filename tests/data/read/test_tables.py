"""Parquet rows are the JSON that they would have been; rows and columns beyond what text is worth are left by name."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vicuna.data.read import tables
from vicuna.data.read.arrays import MAX_RECORD_BYTES, TOO_LARGE
from vicuna.data.read.tables import TableError, table_rows

pyarrow: Any = pytest.importorskip("pyarrow", reason="parquet needs pip install 'vicuna-kit[data]'")
parquet: Any = pytest.importorskip("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [
    {"id": "a", "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": None}], "n": 3},
    {"id": None, "messages": [], "scores": [0.5, 1.0], "raw": b"\xff", "tags": {"x": "y"}},
    {"id": "c" * 500, "messages": None, "n": 2**40, "flag": True},
]


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def read(path: Path) -> Iterator[tuple[str, bytes, str | None]]:
    with path.open("rb") as file:
        yield from table_rows(file, path, lambda _: None)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"row_group_size": 1}, {"compression": "zstd"}])
def test_rows_come_out_as_json(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    names = dict.fromkeys(name for row in ROWS for name in row)
    path = write(tmp_path / "t.parquet", [{name: row.get(name) for name in names} for row in ROWS], **options)
    plain = parquet.read_table(path).to_pylist()
    expected = [
        json.dumps({key: value for key, value in row.items() if value is not None}, default=str) for row in plain
    ]
    assert [(data.decode(), problem) for _, data, problem in read(path)] == [(line, None) for line in expected]
    for name in ("BATCH_BYTES", "USUAL_BYTES"):  # row by row, then by dictionaries
        monkeypatch.setattr(tables, name, 10)
        assert [data.decode() for _, data, _ in read(path)] == expected


def test_a_text_that_every_row_names_is_in_memory_once(tmp_path: Path) -> None:
    text = "x" * (MAX_RECORD_BYTES + 1)
    rows = [{"id": str(n), "messages": [{"role": "user", "content": text}] * (n % 2)} for n in range(128)]
    path = write(tmp_path / "t.parquet", rows, compression="zstd")
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    found = [(len(data) > 0, problem) for _, data, problem in read(path)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(True, None), (False, TOO_LARGE)] * 64
    assert peak < 64 << 20


def test_a_size_is_never_more_than_the_json() -> None:
    rows = [{"a": [{"b": "text", "c": [1, 2]}] * n, "d": "e" * n, "f": None if n % 2 else "g"} for n in range(40)]
    [batch] = pyarrow.Table.from_pylist(rows).to_batches()
    sizes = np.sum([tables._sizes(column) for column in batch.columns], axis=0)
    for size, row in zip(sizes.tolist(), batch.to_pylist(), strict=True):
        assert 0.3 * len(json.dumps(row)) - 20 < size <= len(json.dumps(row))
    part = batch.slice(20, 5)
    assert np.sum([tables._sizes(column) for column in part.columns], axis=0).tolist() == sizes[20:25].tolist()


def test_columns_that_stand_for_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [{"messages": [{"content": "y" * 100_000}, {"content": "z"}]}] * 100
    path = write(tmp_path / "t.parquet", rows, compression="zstd")
    assert len(list(read(path))) == 100
    column = "column 'messages.list.element.content'"
    monkeypatch.setattr(tables, "MAX_COLUMN_BYTES", 1_000)
    with pytest.raises(TableError, match=f"{column} unpacks to [0-9,]+ bytes, more than 100 times its size"):
        list(read(path))
    monkeypatch.setattr(tables, "MAX_COLUMN_VALUES", 10)
    with pytest.raises(TableError, match=f"{column} has 200 values in a row group, and 10 are taken"):
        list(read(path))


def test_damaged_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.parquet", ROWS[:1]).read_bytes()
    for damaged in (whole[:-10], b"PAR1" + b"\xff" * 60 + b"PAR1", whole[:40] + bytes(20) + whole[60:]):
        with pytest.raises(TableError):
            list(table_rows(io.BytesIO(damaged), tmp_path / "t.parquet", lambda _: None))
