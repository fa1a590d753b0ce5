"""Raw records to records: every shape, and every way in which one can be bad."""

import json
from pathlib import Path

from vicuna.data.read.record import Malformed, read_records
from vicuna.data.step_kinds import Record

SHAREGPT = {"id": "a", "conversations": [{"from": "human", "value": "q é 漢"}, {"from": "gpt", "value": "r"}]}


MESSAGES = {"id": "b", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}], "k": [1]}


ALPACA = {"instruction": "q", "input": "", "output": "r"}


def read(path: Path) -> list[Record | Malformed]:
    return list(read_records(path))


def test_the_three_shapes(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps([SHAREGPT, MESSAGES, ALPACA], ensure_ascii=False), "utf-8")
    first, second, third = read(path)
    assert isinstance(first, Record) and isinstance(second, Record) and isinstance(third, Record)
    assert (first.id, first.source, first.shape) == ("a", "some.json:1", "sharegpt")
    assert [message.content for message in first.messages] == ["q é 漢", "r"]
    assert (second.id, second.shape, second.extra) == ("b", "messages", {"k": [1]})
    assert (third.id, third.source, third.shape) == ("some-000003", "some.json:3", "alpaca")


def test_bad_lines_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    good = json.dumps(SHAREGPT).encode()
    bad = {
        b'{"cut": ': "line 3: not JSON",
        b'{"id": "\xff"}': "line 4: byte 8 of the record is not UTF-8",
        b"[1]": "line 5: a record is a JSON object, not list",
        b'{"id": "x", "messages": 3}': "line 6: 'messages' is int, not a list of turns",
        b'{"id": "y", "messages": [{"role": "user"}]}': "line 7: 'messages'[0] lacks 'role' or 'content'",
        b'{"id": "z", "messages": [{"role": "king", "content": ""}]}': "unknown role 'king'",
        b'{"id": "n", "conv\x00ersations": []}': "line 9: not JSON (Invalid control character",
        b"\x00" * 9: "line 10: not JSON",
        b"[" * 100_000: "line 11: not JSON that can be read (nested too deep)",
        b'{"n": ' + b"9" * 5000 + b"}": "line 12: not JSON (Exceeds the limit",
        b'{"id": 5}': "no conversation in a record with the keys 'id'",
    }
    path.write_bytes(b"\n".join([good, b"", *bad, good]))
    first, *others, last = read(path)
    assert isinstance(first, Record) and isinstance(last, Record)
    assert (first.source, last.source) == ("some.jsonl:1", "some.jsonl:13")
    for number, (item, reason) in enumerate(zip(others, bad.values(), strict=True), 2):
        assert isinstance(item, Malformed) and reason in item.reason, (reason, item)
        assert item.source == f"some.jsonl:{number}" and len(item.reason) < 1000
    assert [item.id for item in others][2:5] == ["some-000004", "x", "y"]
    assert others[-1].id == "5"


def test_lone_surrogates_cannot_reach_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    row = dict.fromkeys(("id", "note", "original_id"), "�")
    path.write_text(json.dumps(row | {"messages": [{"role": "user", "content": "\ud800"}]}), "utf-8")
    (only,) = read(path)
    assert isinstance(only, Record)
    parts = [only.id, only.original_id, only.extra, only.messages[0].content]
    json.dumps(parts, ensure_ascii=False).encode("utf-8")
