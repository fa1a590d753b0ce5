"""Conversations as files and in the browser's storage, and their last question.

Shared by the chat page (download) and the terminal chat (/save, /load). The formats are those of
`vicuna.conversation`: OpenAI messages and ShareGPT; Markdown is for reading only.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vicuna.conversation import Conversation, Message, from_record, to_openai, to_sharegpt
from vicuna.errors import VicunaError
from vicuna.io.files import atomic_file
from vicuna.io.jsonl import read_json

HEADINGS = {"system": "System", "user": "You", "assistant": "Assistant", "tool": "Tool"}


def read_messages(stored: Any) -> list[Message]:
    """The questions and replies in the browser's storage; a damaged store reads as an empty chat."""
    kept = stored.get("messages") if isinstance(stored, dict) else None
    messages = []
    for message in kept if isinstance(kept, list) else []:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("user", "assistant") or not isinstance(content, str):
            return []
        messages.append(Message(role, content))
    return messages


def split_unanswered(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """The conversation up to its last reply, and the question after it that got none (empty if there is none)."""
    if messages and messages[-1].role == "user":
        return list(messages[:-1]), messages[-1].content
    return list(messages), ""


def before_last_question(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """What came before the last question, and that question (empty if there is none)."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].role == "user":
            return list(messages[:position]), messages[position].content
    return list(messages), ""


def as_openai(messages: Sequence[Message]) -> str:
    """`{"messages": [{"role", "content"}]}`"""
    return _json(to_openai(Conversation("chat", tuple(messages))))


def as_sharegpt(messages: Sequence[Message]) -> str:
    """`[{"id", "conversations": [{"from", "value"}]}]`, the format `python -m vicuna.data` reads."""
    return _json([to_sharegpt(Conversation("chat", tuple(messages)))])


def as_markdown(messages: Sequence[Message]) -> str:
    """The conversation for reading, a heading for each message."""
    return "\n\n".join(f"## {HEADINGS[message.role]}\n\n{message.content.strip()}" for message in messages) + "\n"


# Name on the page's button: (file extension, function that makes the text).
EXPORTS: dict[str, tuple[str, Callable[[Sequence[Message]], str]]] = {
    "OpenAI JSON": ("json", as_openai),
    "ShareGPT JSON": ("sharegpt.json", as_sharegpt),
    "Markdown": ("md", as_markdown),
}


def save(messages: Sequence[Message], path: Path, *, overwrite: bool) -> None:
    """Write the conversation; the file's ending chooses the format: .md, .sharegpt.json, else OpenAI messages.

    Raises:
        VicunaError: `path` exists and `overwrite` is false.
    """
    if path.name.endswith(".md"):
        text = as_markdown(messages)
    else:
        text = as_sharegpt(messages) if path.name.endswith(".sharegpt.json") else as_openai(messages)
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(text)


def load(path: Path) -> list[Message]:
    """Messages of a saved conversation: OpenAI messages, ShareGPT or Alpaca; of a list, the first.

    Raises:
        VicunaError: the file is not one of these.
    """
    record = read_json(path)
    if isinstance(record, list) and record:
        record = record[0]
    if not isinstance(record, dict):
        raise VicunaError(f"{path} holds no conversation; it needs 'messages' or 'conversations'")
    return list(from_record(record).messages)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
