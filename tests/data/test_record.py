"""Reading: every shape, every size of window, and every way in which a file can be bad."""

import json
from pathlib import Path

import pytest

from vicuna.data import record as reading
from vicuna.data.record import Malformed, read_records
from vicuna.data.step import Record
from vicuna.errors import VicunaError

SHAREGPT = {"id": "a", "conversations": [{"from": "human", "value": "q é 漢"}, {"from": "gpt", "value": "r"}]}
MESSAGES = {"id": "b", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}], "k": [1]}
ALPACA = {"instruction": "q", "input": "", "output": "r"}


def read(path: Path) -> list[Record | Malformed]:
    return list(read_records(path))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_record_by_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", chunk)
    path = tmp_path / "some.json"
    text = json.dumps([SHAREGPT, MESSAGES, ALPACA], indent=indent, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f" {text}\n".encode())
    first, second, third = read(path)
    assert isinstance(first, Record) and isinstance(second, Record) and isinstance(third, Record)
    assert (first.id, first.source, first.shape) == ("a", "some.json:1", "sharegpt")
    assert [message.content for message in first.messages] == ["q é 漢", "r"]
    assert (second.id, second.shape, second.extra) == ("b", "messages", {"k": [1]})
    assert (third.id, third.source, third.shape) == ("some-000003", "some.json:3", "alpaca")


def test_a_value_at_the_edge_of_the_window_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4)
    path = tmp_path / "some.json"
    path.write_text("[123456789, 7]", "utf-8")
    first, second = read(path)
    assert isinstance(first, Malformed) and isinstance(second, Malformed)
    assert "123456789" in first.reason and first.reason != second.reason


def test_lines_are_read_and_bad_ones_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    lines = [json.dumps(SHAREGPT).encode(), b"", b'{"cut": ', b'{"id": "\xff"}', b"[1]", b'{"id": "x", "messages": 3}']
    path.write_bytes(b"\n".join(lines))
    good, cut, latin, array, no_turns = read(path)
    assert isinstance(good, Record)
    for bad, reason in [(cut, "line 3: not JSON"), (latin, "line 4: byte 8 is not UTF-8"), (array, "not list")]:
        assert isinstance(bad, Malformed) and reason in bad.reason
    assert isinstance(no_turns, Malformed)
    assert (no_turns.id, no_turns.source) == ("x", "some.jsonl:5")
    assert "not a list of turns" in no_turns.reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"hello", "must be a JSON array or JSON lines"),
        (b'{"a":\n 1}', "must be a JSON array or JSON lines"),
        (b'[{"id": 1}, {"id"', "not JSON at character"),
        (b'[{"id": 1} {"id": 2}]', "comma or the closing"),
        (b'[{"id": 1}', "comma or the closing"),
        (b'[{"id": 1},]', "not JSON at character 12"),
        (b"[] x", "more text after"),
        (b'[{"id": "\xff"}]', "byte 9 is not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_file_that_is_no_collection_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(VicunaError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match="no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(VicunaError, match="is a folder"):
        read(tmp_path)


def test_lone_surrogates_cannot_reach_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(r'{"id": "\ud800", "messages": [{"role": "user", "content": "\ud800"}], "note": "\ud800"}', "utf-8")
    (only,) = read(path)
    assert isinstance(only, Record)
    json.dumps([only.id, only.extra, only.messages[0].content], ensure_ascii=False).encode("utf-8")
