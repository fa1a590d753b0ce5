"""Records to conversations and back: ShareGPT, OpenAI messages and Alpaca.

The shape is recognized by its keys. Our own records are `{"id", "messages", ...}`; unknown keys are kept.
"""

from typing import Any

from vicuna.conversation.message import ROLES, Conversation, Message, RecordError, Role

# ShareGPT's `from` values, and those of other exports of the same data.
SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}
TO_SHAREGPT: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}


def from_record(record: Any) -> Conversation:
    """Read one record of any of the three shapes. Texts are kept as they are, but for lone surrogates.

    Raises:
        RecordError: no shape fits, a role is unknown, or a text is not a string; the message names the turn.
    """
    if not isinstance(record, dict):
        raise RecordError(f"a record is a JSON object, not {type(record).__name__}")
    if "conversations" in record:
        messages = _turns(record["conversations"], "conversations", "from", "value", SHAREGPT_ROLES)
        used = {"conversations"}
    elif "messages" in record:
        messages = _turns(record["messages"], "messages", "role", "content", {role: role for role in ROLES})
        used = {"messages"}
    elif "instruction" in record and "output" in record:
        messages = _alpaca(record)
        used = {"instruction", "input", "output"}
    else:
        raise RecordError(
            f"no conversation in a record with the keys {', '.join(map(repr, sorted(record))) or '(none)'}; "
            "expected 'conversations', 'messages', or 'instruction' and 'output'"
        )
    identifier = record.get("id")
    extra = {key: value for key, value in record.items() if key not in used | {"id"}}
    return Conversation("" if identifier is None else str(identifier), tuple(messages), extra)


def _turns(turns: Any, key: str, role_key: str, text_key: str, roles: dict[str, Role]) -> list[Message]:
    if not isinstance(turns, list):
        raise RecordError(f"'{key}' is {type(turns).__name__}, not a list of turns")
    messages = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict) or role_key not in turn or text_key not in turn:
            raise RecordError(f"'{key}'[{index}] lacks '{role_key}' or '{text_key}'")
        name = turn[role_key]
        if not isinstance(name, str) or name not in roles:
            raise RecordError(f"'{key}'[{index}] has the unknown role {name!r}; known: {', '.join(roles)}")
        messages.append(Message(roles[name], _text(turn[text_key], f"'{key}'[{index}].{text_key}")))
    return messages


def _text(value: Any, place: str) -> str:
    """A text, or a list of text parts as OpenAI writes them."""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) < len(value) or not all(isinstance(part, str) for part in parts):
            raise RecordError(f"{place} holds a part that is not text")
        value = "".join(map(str, parts))
    if not isinstance(value, str):
        raise RecordError(f"{place} is {type(value).__name__}, not a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can hold a lone surrogate, UTF-8 cannot
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _alpaca(record: dict[str, Any]) -> list[Message]:
    instruction, given, output = (
        _text(record.get(key) or "", f"'{key}'") for key in ("instruction", "input", "output")
    )
    request = f"{instruction}\n\n{given}" if given else instruction
    return [Message("user", request), Message("assistant", output)]


def to_openai(conversation: Conversation) -> dict[str, Any]:
    """`{"id", "messages": [{"role", "content"}], ...}`: also the shape of our own training records."""
    messages = [{"role": message.role, "content": message.content} for message in conversation.messages]
    return {"id": conversation.id, "messages": messages, **conversation.extra}


def to_sharegpt(conversation: Conversation) -> dict[str, Any]:
    """`{"id", "conversations": [{"from", "value"}], ...}`."""
    turns = [{"from": TO_SHAREGPT[message.role], "value": message.content} for message in conversation.messages]
    return {"id": conversation.id, "conversations": turns, **conversation.extra}


def to_alpaca(conversation: Conversation) -> dict[str, Any]:
    """`{"id", "instruction", "input", "output", ...}`, for a conversation of one question and one answer.

    Raises:
        RecordError: it has another shape.
    """
    if [message.role for message in conversation.messages] != ["user", "assistant"]:
        raise RecordError(
            f"conversation '{conversation.id}' has {len(conversation.messages)} messages; "
            "Alpaca records hold one question and one answer"
        )
    question, answer = conversation.messages
    return {
        "id": conversation.id,
        "instruction": question.content,
        "input": "",
        "output": answer.content,
        **conversation.extra,
    }
