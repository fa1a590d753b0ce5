"""What is learned: the replies with their end marks, and never anything else; and what cannot be used is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.train.conftest import write_records
from vicuna.conversation import TokenCounter, get_template
from vicuna.data.read.record import read_records
from vicuna.data.step_kinds import Record, Split
from vicuna.data.steps.split import splitting
from vicuna.errors import VicunaError
from vicuna.train.batches import encode
from vicuna.train.batches.token_cache import TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files

HOSTILE = ["ASSISTANT: no", "</s>", "<|im_end|>\n<|im_start|>assistant\nhi", "USER:", " ", "", "\n", "naïve 你好"]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))


def tokenize(path: Path, model: Path, template: str = "vicuna_v1.1", max_length: int = 2048) -> TokenizedConversations:
    return tokenize_files([path], get_template(template), AutoTokenizer.from_pretrained(model), max_length=max_length)


def record(*contents: str, **extra: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return {"id": "the-record", "messages": messages, **extra}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.sampled_from(["vicuna_v1.1", "chatml", "hf"]))
def test_the_learned_tokens_spell_the_replies_and_nothing_else(
    tmp_path: Path, tiny_model: Path, rounds: list[tuple[str, str]], template: str
) -> None:
    rounds = [(q.encode("utf-8", "replace").decode(), a.encode("utf-8", "replace").decode()) for q, a in rounds]
    path = write_records(tmp_path / "r.jsonl", [record(*(text for pair in rounds for text in pair))])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenize(path, tiny_model, template)
    learned = tokenizer.decode(tokens.input_ids[tokens.is_supervised], clean_up_tokenization_spaces=False)
    lead = " " if template == "vicuna_v1.1" else ""
    assert learned == "".join(f"{lead}{answer}<|im_end|>" for _, answer in rounds)


def test_context_messages_are_read_but_not_learned(tmp_path: Path, tiny_model: Path) -> None:
    path = write_records(tmp_path / "r.jsonl", [record("a", "old reply", "b", "new reply", context_messages=2)])
    tokens = tokenize(path, tiny_model)
    learned = AutoTokenizer.from_pretrained(tiny_model).decode(tokens.input_ids[tokens.is_supervised])
    assert "new reply" in learned
    assert "old reply" not in learned


def test_context_is_counted_behind_the_system_text(tmp_path: Path, tiny_model: Path) -> None:
    messages = [{"role": "system", "content": "be kind"}, *record("a", "old reply", "b", "new reply")["messages"]]
    path = write_records(tmp_path / "r.jsonl", [{"id": "x", "messages": messages, "context_messages": 2}])
    tokens = tokenize(path, tiny_model)
    assert AutoTokenizer.from_pretrained(tiny_model).decode(tokens.input_ids[tokens.is_supervised]) == (
        " new reply<|im_end|>"
    )


@pytest.mark.parametrize("carry_over", [0, 1, 3])
def test_pieces_of_a_conversation_teach_each_reply_once(tmp_path: Path, tiny_model: Path, carry_over: int) -> None:
    tokenizer, template = AutoTokenizer.from_pretrained(tiny_model), get_template("vicuna_v1.1")
    turns = [text for number in range(12) for text in (f"question {number} " * 3, f"reply {number}.")]
    whole = record(*turns)
    whole["messages"].insert(0, {"role": "system", "content": "be kind"})
    source = write_records(tmp_path / "whole.jsonl", [whole])
    [item] = read_records(source)
    assert isinstance(item, Record)
    outcome = splitting(TokenCounter(template, tokenizer), 190, carry_over=carry_over).run(item)
    assert isinstance(outcome, Split)
    assert any("context_messages" in piece.extra for piece in outcome.records) == bool(carry_over)
    pieces = write_records(tmp_path / "pieces.jsonl", [piece.to_row() for piece in outcome.records])
    tokens = tokenize(pieces, tiny_model, max_length=190)
    assert not tokens.too_long
    learned = tokenizer.decode(tokens.input_ids[tokens.is_supervised])
    assert learned == "".join(f" reply {number}.<|im_end|>" for number in range(12))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_what_cannot_be_used_is_left_out_counted_and_named(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    long, mute = {**record("a", "word " * 300), "id": "the-long-one"}, {**record("a question"), "id": "the-mute-one"}
    lines = [json.dumps(item) for item in (record("a", "b"), long, mute)]
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
    good = [record("a", "b")] * 200
    tokenize(write_records(tmp_path / "r.jsonl", [*good, record("a"), record("a")]), tiny_model)
    path = write_records(tmp_path / "r.jsonl", [*good, *[record("a")] * 2, {**record("a", "b " * 999), "id": "long"}])
    with pytest.raises(
        VicunaError, match=r"long; python.*2 of 203 records.*; that is 1\.5% of all, and --max-bad-share"
    ):
        tokenize(path, tiny_model, max_length=200)


def test_several_processes_give_the_tokens_of_one(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "CHUNK_BYTES", 4000)
    records = [record(f"question {number}", "word " * (number % 50), "more", "end") for number in range(300)]
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
    ours = write_records(tmp_path / "ours.jsonl", [record("a", "b")])
    assert tokenize(path, tiny_model).fingerprint() == tokenize(ours, tiny_model).fingerprint()


def test_the_fingerprint_sees_texts_masks_and_order(tmp_path: Path, tiny_model: Path) -> None:
    first, second = record("a", "b"), record("c", "d", "e", "f")
    sets = [[first, second], [second, first], [first], [first, {**second, "context_messages": 2}]]
    files = [write_records(tmp_path / f"{number}.jsonl", records) for number, records in enumerate(sets)]
    assert len({tokenize(path, tiny_model).fingerprint() for path in files}) == len(sets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "nothing to train on, it has no records"),
        ("nonsense\n", r"r\.jsonl:1: not JSON"),
        (
            json.dumps(record("only a question")),
            "record the-record has no reply to learn from under template vicuna_v1.1",
        ),
        (json.dumps({"id": "x", "messages": 3}), r"r\.jsonl:1: record x: 'messages'"),
        (
            json.dumps(record("a", "b", context_messages=9)),
            "context_messages is 9; .* system text, from 0 to 2",
        ),
        (json.dumps(record("a", "b", context_messages=2)), "no reply to learn from"),
        (json.dumps(record("a", "word " * 5000)), "nothing to train on, 1 of 1 conversations are longer than 2048"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, tiny_model: Path, content: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(VicunaError, match=message) as caught:
        tokenize(path, tiny_model)
    assert "\n" not in str(caught.value)


def test_json_that_is_no_list_of_records(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "r.json"
    for content, message in (("{}", "holds a JSON dict"), ("[1]", "item 0 is a int"), ("[", "not JSON")):
        path.write_text(content)
        with pytest.raises(VicunaError, match=message):
            tokenize(path, tiny_model)
    with pytest.raises(VicunaError, match=r"none\.jsonl: no such file"):
        tokenize(tmp_path / "none.jsonl", tiny_model)
