"""Files to tokens: what cannot be used is left out, counted and named; several processes give the same."""

import json
import tracemalloc
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.train.builders import make_record, tokenized, write_records
from vicuna.conversation import get_template
from vicuna.data.read.arrays import MAX_RECORD_BYTES
from vicuna.errors import VicunaError
from vicuna.train.batches import encode
from vicuna.train.batches.encode import encode_chunk, read_chunks
from vicuna.train.batches.tokenize import tokenize_files


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_what_cannot_be_used_is_left_out_counted_and_named(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    long, mute = (
        {**make_record("a", "word " * 300), "id": "the-long-one"},
        {**make_record("a question"), "id": "the-mute-one"},
    )
    lines = [json.dumps(item) for item in (make_record("a", "b"), long, mute)]
    path = tmp_path / f"r{suffix}"
    path.write_text(f"[{','.join([*lines, '7'])}]" if suffix == ".json" else "\n".join([*lines, '{"id": "cut sh']))
    tokenizer, template = AutoTokenizer.from_pretrained(tiny_model), get_template("vicuna_v1.1")
    tokens = tokenize_files([path], template, tokenizer, max_length=120, max_bad_share=0.8)
    assert tokens.ids == ["the-record"]
    assert tokens.too_long == ["the-long-one"]
    said = capsys.readouterr().err
    assert "1 of 4 conversations are longer than 120 tokens: the-long-one" in said
    assert "2 of 4 records cannot be used" in said
    assert "record the-mute-one has no reply to learn from" in said
    assert ("item 3: expected a JSON object, found int" if suffix == ".json" else "r.jsonl:4: not JSON") in said


def test_more_than_one_in_a_hundred_stops_the_run(tmp_path: Path, tiny_model: Path) -> None:
    good = [make_record("a", "b")] * 200
    tokenized(write_records(tmp_path / "r.jsonl", [*good, make_record("a"), make_record("a")]), tiny_model)
    path = write_records(
        tmp_path / "r.jsonl", [*good, *[make_record("a")] * 2, {**make_record("a", "b " * 999), "id": "long"}]
    )
    with pytest.raises(
        VicunaError, match=r"long; vicuna data.*2 of 203 records.*; that is 1\.5% of all, and --max-bad-share"
    ):
        tokenized(path, tiny_model, max_length=200)


def test_several_processes_give_the_tokens_of_one(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "CHUNK_BYTES", 4000)
    records = [make_record(f"question {number}", "word " * (number % 50), "more", "end") for number in range(300)]
    records[7]["messages"] = 3
    path = write_records(tmp_path / "r.jsonl", records)
    assert path.stat().st_size > 10 * encode.CHUNK_BYTES
    tokenizer, template = AutoTokenizer.from_pretrained(tiny_model), get_template("chatml")
    one, two = (
        tokenize_files([path], template, tokenizer, max_length=100, max_bad_share=0.9, workers=workers)
        for workers in (1, 2)
    )
    assert one.fingerprint() == two.fingerprint()
    assert (one.ids, one.malformed) == (two.ids, two.malformed)
    assert "r.jsonl:8: record the-record: 'messages'" in two.malformed[0]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_sharegpt_and_our_own_records_give_the_same_tokens(tmp_path: Path, tiny_model: Path, suffix: str) -> None:
    sharegpt = {"id": "the-record", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    path = tmp_path / f"sharegpt{suffix}"
    path.write_text(json.dumps([sharegpt] if suffix == ".json" else sharegpt))
    ours = write_records(tmp_path / "ours.jsonl", [make_record("a", "b")])
    assert tokenized(path, tiny_model).fingerprint() == tokenized(ours, tiny_model).fingerprint()


def test_the_fingerprint_sees_texts_masks_and_order(tmp_path: Path, tiny_model: Path) -> None:
    first, second = make_record("a", "b"), make_record("c", "d", "e", "f")
    sets = [[first, second], [second, first], [first], [first, {**second, "context_messages": 2}]]
    files = [write_records(tmp_path / f"{number}.jsonl", records) for number, records in enumerate(sets)]
    assert len({tokenized(path, tiny_model).fingerprint() for path in files}) == len(sets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "nothing to train on, it has no records"),
        ("nonsense\n", r"r\.jsonl:1: not JSON"),
        (
            json.dumps(make_record("only a question")),
            "record the-record has no reply to learn from under template vicuna_v1.1",
        ),
        (json.dumps({"id": "x", "messages": 3}), r"r\.jsonl:1: record x: 'messages'"),
        (
            json.dumps(make_record("a", "b", context_messages=9)),
            "context_messages is 9; .* system text, from 0 to 2",
        ),
        (json.dumps(make_record("a", "b", context_messages=2)), "no reply to learn from"),
        (
            json.dumps(make_record("a", "word " * 5000)),
            "nothing to train on, 1 of 1 conversations are longer than 2048",
        ),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, tiny_model: Path, content: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(VicunaError, match=message) as caught:
        tokenized(path, tiny_model)
    assert "\n" not in str(caught.value)


def test_json_that_is_no_list_of_records(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "r.json"
    for content, message in (
        ("{}", "holds a JSON dict"),
        ("[1]", "item 0: expected a JSON object"),
        ("[", "not JSON"),
        ("", "not JSON"),
    ):
        path.write_text(content)
        with pytest.raises(VicunaError, match=message):
            tokenized(path, tiny_model)
    with pytest.raises(VicunaError, match=r"none\.jsonl: no such file"):
        tokenized(tmp_path / "none.jsonl", tiny_model)


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_files_are_read_a_few_records_at_a_time(tmp_path: Path, tiny_model: Path, ending: str) -> None:
    """However long a file is, little of it is in memory, and a record over the limit is none."""
    path = tmp_path / f"long{ending}"
    between, ends = (",", ("[", "]")) if ending == ".json" else ("\n", ("", ""))
    with path.open("w") as file:
        record = json.dumps(make_record("a", "b" * 1000))
        file.write(ends[0] + between.join([record] * 20_000))
        file.write(between + json.dumps({"text": "x" * MAX_RECORD_BYTES}) + between + record + ends[1])
    tracemalloc.start()
    sizes = [len(data) for chunk in read_chunks([path]) for _, data in chunk]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    end = len(between) if ending == ".jsonl" else 0
    assert sizes == [len(record) + end] * 20_000 + [0, len(record)]
    assert peak < 3 * MAX_RECORD_BYTES < path.stat().st_size
    too_large = encode_chunk(
        [("r.json: item 3", b"")], get_template("plain"), AutoTokenizer.from_pretrained(tiny_model), 100
    )
    assert too_large.malformed == ["r.json: item 3: the record is larger than 8 MiB, which is the limit; split it"]


def test_lists_are_read_as_they_were_when_parsed_whole(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "r.json"
    records = [make_record('a \\ " ]', "[ b \u00e9 {"), {**make_record("é\n", "b"), "id": ']"'}] * 3
    given = [("utf-8", True, None), ("utf-8-sig", False, 2), ("utf-8", False, None)]
    found = []
    for encoding, ensure_ascii, indent in given:
        path.write_text(json.dumps(records, ensure_ascii=ensure_ascii, indent=indent), encoding=encoding)
        found.append(tokenized(path, tiny_model).fingerprint())
    lines = write_records(tmp_path / "r.jsonl", records)
    assert set(found) == {tokenized(lines, tiny_model).fingerprint()}


def test_an_array_that_breaks_is_refused_with_its_place(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "r.json"
    record = json.dumps(make_record("a", "b"))
    for content, place in (
        (f"[{record} {record}]", len(record) + 2),
        (f"[{record},]", len(record) + 2),
        (f"[{record}", len(record) + 1),
    ):
        path.write_text(content)
        with pytest.raises(VicunaError, match=rf"r\.json: not JSON \(.*, byte {place}\)"):
            tokenized(path, tiny_model)
