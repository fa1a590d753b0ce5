"""JSON and JSON lines: round trips, torn lines, errors with their place."""

import errno
import os
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject, append_jsonl, read_json, read_jsonl, write_json, write_jsonl


def test_json_lines_round_trip(tmp_path: Path) -> None:
    rows: list[JsonObject] = [{"a": "é"}, {"b": [1, None]}]
    assert write_jsonl(tmp_path / "x", rows) == 2
    assert list(read_jsonl(tmp_path / "x")) == rows


def test_append_survives_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x"
    append_jsonl(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"b": ')
    append_jsonl(path, {"c": 3})
    lines = path.read_text().splitlines()
    assert lines[0] == '{"a": 1}'
    assert lines[2] == '{"c": 3}'


def test_a_row_that_the_disk_cuts_short_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    append_jsonl(path, {"a": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError) as caught:
        append_jsonl(path, {"b": 2})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == '{"a": 1}\n'


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    row = {"text": "é \ud800"}
    append_jsonl(tmp_path / "x", row)
    write_json(tmp_path / "y", row)
    assert list(read_jsonl(tmp_path / "x")) == [row]
    assert read_json(tmp_path / "y") == row


def test_a_byte_order_mark_is_not_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_jsonl(tmp_path / "x")) == [read_json(tmp_path / "x")] == [{"a": 1}]


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"], ids=["deep", "long number"])
def test_json_beyond_the_parser_is_an_error_of_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    for read in (read_json, lambda path: list(read_jsonl(path))):
        with pytest.raises(VicunaError, match="not JSON that can be read"):
            read(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', ":2: not JSON"),
        (b'{"a": 1}\n\n[1]\n', ":3: expected a JSON object, found list"),
        (b'{"a": "\xff"}\n', ":1: byte 7 is not UTF-8"),
    ],
)
def test_bad_lines_name_their_place(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(VicunaError, match=f"x.jsonl{message}"):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"b": 1, "a": "é"})
    assert read_json(tmp_path / "x") == {"a": "é", "b": 1}
    (tmp_path / "y").write_text("{")
    with pytest.raises(VicunaError, match="y:1:2: not JSON"):
        read_json(tmp_path / "y")
    with pytest.raises(VicunaError, match="no such file"):
        read_json(tmp_path / "z")
    assert os.stat(tmp_path / "x").st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
