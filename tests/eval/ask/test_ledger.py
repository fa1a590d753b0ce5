"""What a ledger keeps, what it refuses, and what it leaves behind."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.eval.ask.ledger import Ledger
from vicuna.io.jsonl import JsonObject, read_jsonl


@dataclass(frozen=True)
class Result:
    key: str
    value: int

    def to_row(self) -> JsonObject:
        return {"key": self.key, "value": self.value}


def from_row(row: JsonObject) -> Result:
    if not isinstance(row["value"], int):
        raise VicunaError(f"value is {row['value']!r}")
    return Result(row["key"], row["value"])


def ledger(path: Path) -> Ledger[Result]:
    return Ledger(path, fields=("value",), from_row=from_row)


async def test_what_is_appended_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.jsonl"
    with ledger(path) as first:
        await first.append(Result("a", 1))
        assert list(read_jsonl(path)) == [{"key": "a", "value": 1}], "on the disk at once"
    with ledger(path) as second:
        await second.append(Result("b", 2))
        assert second.records == {"a": Result("a", 1), "b": Result("b", 2)}


def test_a_new_file_without_a_row_is_removed(tmp_path: Path) -> None:
    with ledger(tmp_path / "out.jsonl"):
        assert (tmp_path / "out.jsonl").exists()
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        ledger(tmp_path / "out.jsonl"),
        pytest.raises(VicunaError, match="another run is writing to it"),
        ledger(tmp_path / "out.jsonl"),
    ):
        pass


@pytest.mark.parametrize("torn", ['{"key": "b', '{"key": "b", "value": 2'])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"key": "a", "value": 1}\n' + torn)
    with ledger(path) as found:
        assert list(found.records) == ["a"]
    assert path.read_text() == '{"key": "a", "value": 1}\n'
    assert f"its {len(torn)} bytes are dropped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "b"}', r"row 2 is of another kind \(key, value expected\)"),
        ('{"key": 3, "value": 1}', "row 2 is of another kind"),
        ('{"key": "b", "value": "x"}', "a row was changed by hand .value is 'x'."),
    ],
)
def test_rows_that_are_not_ours_are_refused_and_kept(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "out.jsonl"
    content = '{"key": "a", "value": 1}\n' + line + "\n"
    path.write_text(content)
    for _ in range(2):  # the lock of the first try is given back
        with pytest.raises(VicunaError, match=message), ledger(path):
            pass
    assert path.read_text() == content


def test_a_row_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"key": "a", "value": 1}\n{"key": "b", "value": 2}')
    with ledger(path) as found:
        assert list(found.records) == ["a", "b"]
    assert path.read_text() == '{"key": "a", "value": 1}\n{"key": "b", "value": 2}'


@pytest.mark.parametrize(
    "content",
    ["my notes", '{"key": "a", "value": 1}\nmy notes', '{"a": 1}', "\n\n[1", '{"key": "a"}\n{"key": "b", "va'],
)
def test_a_file_of_somebody_else_stays_as_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(VicunaError, match="name another --output"), ledger(path):
        pass
    assert path.read_text() == content


def test_opening_reads_each_byte_a_bounded_number_of_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.jsonl"
    for num_rows in (100, 400):
        path.write_text("".join(f'{{"key": "{n}", "value": 1}}\n' for n in range(num_rows)) + '{"key": "x' * 20_000)
        num_read = 0
        pread = os.pread

        def counted(descriptor: int, size: int, start: int, pread: Callable[[int, int, int], bytes] = pread) -> bytes:
            nonlocal num_read
            num_read += size
            return pread(descriptor, size, start)

        size = path.stat().st_size
        monkeypatch.setattr(os, "pread", counted)
        with ledger(path) as found:
            assert len(found.records) == num_rows
        monkeypatch.setattr(os, "pread", pread)
        assert num_read <= 3 * size


async def test_texts_need_not_stay_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Ledger(path, fields=("value",), from_row=from_row, light=lambda one: replace(one, value=0)) as found:
        await found.append(Result("a", 7))
        assert found.records == {"a": Result("a", 0)}
    assert list(read_jsonl(path)) == [{"key": "a", "value": 7}]
