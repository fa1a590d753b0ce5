"""The three shapes in which people keep conversations, read and written."""

from typing import Any

import pytest

from vicuna.conversation import (
    Conversation,
    Message,
    RecordError,
    from_record,
    to_alpaca,
    to_openai,
    to_sharegpt,
)

QUESTION, ANSWER = Message("user", " Hi\n"), Message("assistant", "Hello.")


def test_sharegpt() -> None:
    record = {"id": 7, "conversations": [{"from": "human", "value": " Hi\n"}, {"from": "gpt", "value": "Hello."}]}
    assert from_record(record) == Conversation("7", (QUESTION, ANSWER))


def test_openai_with_text_parts() -> None:
    parts = [{"type": "text", "text": " Hi"}, {"type": "text", "text": "\n"}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Hello."}]}
    assert from_record(record).messages == (QUESTION, ANSWER)


def test_alpaca() -> None:
    record = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert from_record(record).messages == (Message("user", "Add.\n\n1 2"), Message("assistant", "3"))


def test_unknown_keys_survive_the_round_trip() -> None:
    conversation = Conversation("a", (QUESTION, ANSWER), {"source": "x", "num_tokens": 3})
    for write in (to_openai, to_sharegpt, to_alpaca):
        assert from_record(write(conversation)) == conversation


def test_tool_and_system_turns_survive_sharegpt() -> None:
    messages = (Message("system", "s"), QUESTION, Message("tool", "42"), ANSWER)
    assert from_record(to_sharegpt(Conversation("a", messages))).messages == messages


def test_alpaca_holds_one_exchange_only() -> None:
    with pytest.raises(RecordError, match="conversation 'a' has 3 messages"):
        to_alpaca(Conversation("a", (QUESTION, ANSWER, QUESTION)))


def test_lone_surrogate_becomes_writable() -> None:
    record = {"instruction": "a\ud800b", "output": "c"}
    from_record(record).messages[0].content.encode("utf-8")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "not list"),
        ({"id": 1}, "no conversation in a record with the keys 'id'"),
        ({"conversations": "hello"}, "'conversations' is str, not a list"),
        ({"conversations": [{"from": "human"}]}, r"'conversations'\[0\] lacks 'from' or 'value'"),
        ({"conversations": [{"from": "alien", "value": ""}]}, "unknown role 'alien'; known: human"),
        ({"conversations": [{"from": ["gpt"], "value": ""}]}, r"unknown role \['gpt'\]"),
        ({"messages": [{"role": "user", "content": 3}]}, r"'messages'\[0\].content is int"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is not text"),
    ],
)
def test_what_is_no_conversation_says_why(record: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        from_record(record)
