"""Files to tokens: what cannot be used is left out, counted and named; several processes give the same."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.train.builders import make_record, tokenized, write_records
from vicuna.conversation import get_template
from vicuna.errors import VicunaError
from vicuna.train.batches import encode
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
    assert ("item 3 is a int" if suffix == ".json" else "r.jsonl:4: not JSON") in said


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
    for content, message in (("{}", "holds a JSON dict"), ("[1]", "item 0 is a int"), ("[", "not JSON")):
        path.write_text(content)
        with pytest.raises(VicunaError, match=message):
            tokenized(path, tiny_model)
    with pytest.raises(VicunaError, match=r"none\.jsonl: no such file"):
        tokenized(tmp_path / "none.jsonl", tiny_model)
