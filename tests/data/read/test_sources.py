"""Files to raw records: every compression, and every way in which a file can be bad."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vicuna.data.read import arrays, sources
from vicuna.data.read.record import Malformed, read_record
from vicuna.data.read.sources import RawRecord, find_sources, raw_records
from vicuna.errors import VicunaError

ROWS = [{"id": str(n), "text": f'a "quoted" \\ [{{ {n} é'} for n in range(5)]


def read(path: Path) -> list[RawRecord]:
    return list(raw_records(path))


def values(path: Path) -> list[Any]:
    found = read(path)
    assert [raw.number for raw in found] == list(range(1, len(found) + 1))
    assert not [raw.problem for raw in found if raw.problem]
    return [json.loads(raw.data) for raw in found]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "number_good", "place", "reason"),
    [
        (b'[{"id": 1}, {"id"', 1, 12, "the file ends inside this record"),
        (b'[{"id": 1}, {"id": "a [ ', 1, 12, "the file ends inside this record"),
        (b'[{"id": 1} {"id": 2}]', 1, 11, "a comma or the closing ] is missing"),
        (b'[{"id": 1}', 1, 10, "the file ends before the closing ]"),
        (b'[{"id": 1},', 1, 11, "the file ends before the closing ]"),
        (b'[{"id": 1},]', 1, 11, "a value is missing after the comma"),
        (b'[,{"id": 1}]', 0, 1, "',' stands where a value should"),
        (b"[", 0, 1, "the file ends before the closing ]"),
        (b"[] x", 0, 3, "there is more text after the closing ]"),
        (b"[" * 100_000, 0, 1, "the file ends inside this record"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_records_before_a_break_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, number_good: int, place: int, reason: str, chunk: int
) -> None:
    if chunk < 10 < len(text) // 1000:
        return
    monkeypatch.setattr(sources, "READ_BYTES", chunk)
    path = tmp_path / "bad.json"
    path.write_bytes(b"\xef\xbb\xbf" * (chunk > 3) + text)
    *good, bad = read(path)
    assert len(good) == number_good and not any(raw.problem for raw in good)
    assert bad.place == f"byte {place + 3 * (chunk > 3)}"
    assert bad.problem == f"the JSON array breaks here ({reason}); what follows was not read"


def test_a_value_that_is_bad_inside_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(b'[{"id": 1}, {"id": \xff"}"}, {bad}, [3], "x]", tru, {"id": 2}]')
    assert [raw.data for raw in read(path)] == [
        b'{"id": 1}',
        b'{"id": \xff"}"}',
        b"{bad}",
        b"[3]",
        b'"x]"',
        b"tru",
        b'{"id": 2}',
    ]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_lines_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", chunk)
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\n \n" + b'{"a": 1}\r\n\n  {"b": 2}\n{"c": 3}')
    found = read(path)
    assert [raw.data for raw in found] == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']
    assert [raw.place for raw in found] == ["line 3", "line 5", "line 6"]


@pytest.mark.parametrize("is_array", [True, False])
def test_a_record_too_large_is_set_aside_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_array: bool
) -> None:
    for module in (arrays, sources):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(sources, "READ_BYTES", 64)
    path = tmp_path / "some.json"
    rows = [b'{"a": 1}', b'{"a": "' + b"x" * 2000 + b'"}', b'{"a": 3}']
    path.write_bytes(b"[" + b",\n".join(rows) + b"]" if is_array else b"\n".join(rows))
    first, second, third = read(path)
    assert (first.data, third.data) == (rows[0], rows[2])
    assert second.data == b"" and second.problem is not None and "larger than" in second.problem


@pytest.mark.parametrize("is_array", [True, False])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_packed_files_are_told_by_their_bytes(tmp_path: Path, pack: Any, is_array: bool) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(pack(json.dumps(ROWS).encode() if is_array else lines(ROWS)))
    places: list[int] = []
    assert [json.loads(raw.data) for raw in raw_records(path, places.append)] == ROWS
    assert places == sorted(places) and places[-1] == path.stat().st_size


def test_frames_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    packs: dict[str, Callable[[bytes], bytes]] = {"a.zst": zstandard.compress, "a.gz": gzip.compress}
    for name, pack in packs.items():
        path = tmp_path / name
        path.write_bytes(pack(lines(ROWS[:2])) + pack(b"") + pack(lines(ROWS[2:])))
        assert values(path) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_a_packed_file_cut_short_gives_what_it_has(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "some.packed"
    whole = pack(lines([{"n": n, "noise": str(n * n * 7919 % 99991)} for n in range(20000)]))
    path.write_bytes(whole[: len(whole) * 2 // 3])
    *good, bad = read(path)
    assert bad.problem is not None and "the file is damaged" in bad.problem
    assert len(good) > 1000 and json.loads(good[0].data)["n"] == 0
    path.write_bytes(whole[:300] + b"\x00\xff" * 60 + whole[420:])
    assert "damaged" in (read(path)[-1].problem or "")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"id": "a", "conversations": [{"from": "human", "value": "q é"}, {"from": "gpt", "value": "r"}], "score": 1},
        {"id": "b", "conversations": []},
    ]
    path = tmp_path / "some.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert values(path) == rows
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (bad,) = read(path)
    assert bad.problem is not None and "the file is damaged" in bad.problem


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.json"
    path.write_bytes(content)
    (only,) = read(path)
    assert only.problem == "the file is empty"


def test_a_file_that_holds_no_records_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_bytes(b"It was a dark and stormy night.\n" * 100_000)
    found = read(path)
    assert len(found) == sources.MAX_LINES_WITHOUT_RECORD + 1
    assert found[-1].problem is not None and "the rest of the file was not read" in found[-1].problem


def names(*inputs: Path, avoid: tuple[Path, ...] = ()) -> list[str]:
    return [source.name for source in find_sources(inputs, avoid)]


def test_files_folders_and_patterns_in_one_order(tmp_path: Path) -> None:
    for name in (
        "b.json",
        "a.jsonl",
        "deep/c.jsonl.gz",
        "deep/er/d.parquet",
        "notes.txt",
        ".hidden.json",
        "out/e.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = ["a.jsonl", "b.json", "c.jsonl.gz", "d.parquet"]
    avoid = (tmp_path / "out",)
    assert names(tmp_path, avoid=avoid) == expected
    assert names(tmp_path / "deep", tmp_path / "b.json", tmp_path / "*.jsonl", tmp_path / "b.json") == expected
    assert names(tmp_path / "**" / "*.parquet", tmp_path / "notes.txt") == ["d.parquet", "notes.txt"]


def test_files_of_one_name_are_ordered_by_content(tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        path = tmp_path / f"x{number}" / "same.json"
        path.parent.mkdir()
        path.write_text(str(number % 4))
        paths.append(path)
    orders = [
        [source.sha256 for source in find_sources(tuple(given))]
        for given in (paths, paths[::-1], paths[2:] + paths[:2])
    ]
    assert orders[0] == orders[1] == orders[2] and len(orders[0]) == 5


@pytest.mark.parametrize(
    ("name", "words"), [("none.json", "no such file"), ("folder", "holds no file to read"), ("*.x", "holds no file")]
)
def test_inputs_that_are_no_files_are_errors(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(VicunaError, match=words) as raised:
        find_sources((tmp_path / name,))
    assert str(tmp_path / name) in str(raised.value)


def test_a_device_is_no_input() -> None:
    with pytest.raises(VicunaError, match="not a plain file"):
        find_sources((Path("/dev/null"),))


FRAGMENTS = st.sampled_from(
    (
        *(
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b'"',
            b"\\",
            b"\n",
            b" ",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b"null",
            b"1e999",
            b"\\ud800",
        ),
        *(
            b'"conversations"',
            b'{"from": "human", "value": "q"}',
            b'{"from": "gpt", "value": "<p>a</p>"}',
            b'"messages"',
        ),
        *(
            b'{"id": "x", "conversations": [{"from": "human", "value": "\\ud800"}]}',
            b"PAR1",
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
        ),
    )
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=80) | st.lists(FRAGMENTS, max_size=20).map(b"".join),
    packing=st.sampled_from(("", "gz", "cut")),
)
def test_any_bytes_give_records_or_reasons(tmp_path: Path, data: bytes, packing: str) -> None:
    """Nothing is raised, each record has its place, and all that is told can be written."""
    path = tmp_path / "any"
    packed = gzip.compress(data, mtime=0) if packing else data
    path.write_bytes(packed[: len(packed) // 2] if packing == "cut" else packed)
    for number, raw in enumerate(raw_records(path), 1):
        assert raw.number == number and raw.place and (raw.data or raw.problem)
        found = read_record(raw)
        told = found.reason if isinstance(found, Malformed) else json.dumps(found.extra, ensure_ascii=False)
        assert told.encode("utf-8") and found.id.encode("utf-8")
