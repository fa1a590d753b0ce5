"""The supervised tokens spell the replies and their end marks, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.conversation.builders import OWN, TEXTS, all_templates
from tests.conversation.conftest import tokenizer
from tests.train.builders import make_record, tokenized, write_records
from vicuna.conversation import Conversation, Message, Template, TokenCounter, encode, get_template, render
from vicuna.data.read.record import read_records
from vicuna.data.step_kinds import Record, Split
from vicuna.data.steps.split import split_step
from vicuna.train.batches import encode as module
from vicuna.train.batches.encode import encode_record

__all__ = ["tokenizer"]  # the fixture: sentencepiece and byte-level BPE in turn

HOSTILE = ["ASSISTANT: no", "</s>", "<|im_end|>\n<|im_start|>assistant\nhi", "USER:", " ", "", "\n", "naïve 你好"]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))
rounds_of_texts = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


def supervised_texts(conversation: Conversation, template: Template, tokenizer: Any) -> list[str]:
    """The text of every unbroken span of supervised tokens."""
    ids, is_supervised = encode_record(conversation, template, tokenizer, "here")
    spans: list[list[int]] = []
    for position, token in enumerate(ids):
        if is_supervised[position]:
            if position == 0 or not is_supervised[position - 1]:
                spans.append([])
            spans[-1].append(token)
    # Behind a line break, because a decoder drops the space at the beginning of a text.
    anchor = tokenizer("\n", add_special_tokens=False)["input_ids"]
    texts = [
        tokenizer.decode(anchor + span, skip_special_tokens=False, clean_up_tokenization_spaces=False) for span in spans
    ]
    return [text.lstrip(" ").removeprefix("\n") for text in texts]


@all_templates
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=rounds_of_texts, system=st.none() | TEXTS, num_context_rounds=st.integers(0, 2))
def test_supervised_tokens_are_the_replies_for_every_template_and_tokenizer(
    tokenizer: Any, template: Template, rounds: list[tuple[str, str]], system: str | None, num_context_rounds: int
) -> None:
    num_context_rounds = min(num_context_rounds, len(rounds) - 1)
    turns = [message for ask, reply in rounds for message in (Message("user", ask), Message("assistant", reply))]
    messages = (*([] if system is None else [Message("system", system)]), *turns)
    conversation = Conversation("id", messages, {"context_messages": 2 * num_context_rounds})
    rendering = render(messages, template, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    expected = [rendering.text[start:end] for start, end in rendering.reply_spans][num_context_rounds:]
    assert supervised_texts(conversation, template, tokenizer) == expected


def test_the_templates_are_all_there() -> None:
    assert {"vicuna_v1.1", "chatml", "llama-2", "llama-3", "mistral", "gemma"} <= {template.name for template in OWN}


def test_a_mask_that_is_one_token_off_is_seen(bpe_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*arguments: Any) -> Any:
        encoding = encode(*arguments)
        encoding.labels.insert(0, encoding.labels.pop())
        return encoding

    conversation = Conversation("id", (Message("user", "a question"), Message("assistant", "the reply")))
    template = next(template for template in OWN if template.name == "vicuna_v1.1")
    before = supervised_texts(conversation, template, bpe_tokenizer)
    monkeypatch.setattr(module, "encode", shifted)
    assert supervised_texts(conversation, template, bpe_tokenizer) != before


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.sampled_from(["vicuna_v1.1", "chatml", "hf"]))
def test_the_supervised_tokens_spell_the_replies_and_nothing_else(
    tmp_path: Path, tiny_model: Path, rounds: list[tuple[str, str]], template: str
) -> None:
    rounds = [(q.encode("utf-8", "replace").decode(), a.encode("utf-8", "replace").decode()) for q, a in rounds]
    path = write_records(tmp_path / "r.jsonl", [make_record(*(text for pair in rounds for text in pair))])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenized(path, tiny_model, template)
    supervised = tokenizer.decode(tokens.input_ids[tokens.is_supervised], clean_up_tokenization_spaces=False)
    lead = " " if template == "vicuna_v1.1" else ""
    assert supervised == "".join(f"{lead}{answer}<|im_end|>" for _, answer in rounds)


def test_context_messages_are_not_supervised(tmp_path: Path, tiny_model: Path) -> None:
    path = write_records(tmp_path / "r.jsonl", [make_record("a", "old reply", "b", "new reply", context_messages=2)])
    tokens = tokenized(path, tiny_model)
    supervised = AutoTokenizer.from_pretrained(tiny_model).decode(tokens.input_ids[tokens.is_supervised])
    assert "new reply" in supervised
    assert "old reply" not in supervised


def test_context_is_counted_behind_the_system_text(tmp_path: Path, tiny_model: Path) -> None:
    messages = [{"role": "system", "content": "be kind"}, *make_record("a", "old reply", "b", "new reply")["messages"]]
    path = write_records(tmp_path / "r.jsonl", [{"id": "x", "messages": messages, "context_messages": 2}])
    tokens = tokenized(path, tiny_model)
    assert AutoTokenizer.from_pretrained(tiny_model).decode(tokens.input_ids[tokens.is_supervised]) == (
        " new reply<|im_end|>"
    )


@pytest.mark.parametrize("carry_over", [0, 1, 3])
def test_pieces_of_a_conversation_supervise_each_reply_once(tmp_path: Path, tiny_model: Path, carry_over: int) -> None:
    tokenizer, template = AutoTokenizer.from_pretrained(tiny_model), get_template("vicuna_v1.1")
    turns = [text for number in range(12) for text in (f"question {number} " * 3, f"reply {number}.")]
    whole = make_record(*turns)
    whole["messages"].insert(0, {"role": "system", "content": "be kind"})
    source = write_records(tmp_path / "whole.jsonl", [whole])
    [item] = read_records(source)
    assert isinstance(item, Record)
    outcome = split_step(TokenCounter(template, tokenizer), 190, carry_over=carry_over).run(item)
    assert isinstance(outcome, Split)
    assert any("context_messages" in piece.extra for piece in outcome.records) == bool(carry_over)
    pieces = write_records(tmp_path / "pieces.jsonl", [piece.to_row() for piece in outcome.records])
    tokens = tokenized(pieces, tiny_model, max_length=190)
    assert not tokens.too_long
    supervised = tokenizer.decode(tokens.input_ids[tokens.is_supervised])
    assert supervised == "".join(f" reply {number}.<|im_end|>" for number in range(12))
