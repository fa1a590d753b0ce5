"""Conversations as files and in the browser's storage."""

import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.conversation import Message
from vicuna.errors import VicunaError
from vicuna.serve.client import transcript

CHAT = [
    Message("system", "be brief"),
    Message("user", "What is <b>2+2</b>?\n"),
    Message("assistant", "4\n"),
]


def test_markdown() -> None:
    assert transcript.as_markdown(CHAT) == (
        "## System\n\nbe brief\n\n## You\n\nWhat is <b>2+2</b>?\n\n## Assistant\n\n4\n"
    )


@pytest.mark.parametrize("name", ["chat.json", "chat.sharegpt.json"])
def test_saved_chats_come_back(tmp_path: Path, name: str) -> None:
    transcript.save(CHAT, tmp_path / name, overwrite=False)
    assert transcript.load(tmp_path / name) == CHAT


def test_the_shapes_are_the_ecosystems() -> None:
    assert json.loads(transcript.as_openai(CHAT))["messages"][2] == {"role": "assistant", "content": "4\n"}
    [record] = json.loads(transcript.as_sharegpt(CHAT))
    assert record["conversations"][1] == {"from": "human", "value": "What is <b>2+2</b>?\n"}


def test_a_file_is_never_overwritten_silently(tmp_path: Path) -> None:
    (tmp_path / "chat.md").write_text("mine")
    with pytest.raises(VicunaError, match=r"chat\.md"):
        transcript.save(CHAT, tmp_path / "chat.md", overwrite=False)
    assert (tmp_path / "chat.md").read_text() == "mine"


@pytest.mark.parametrize("text", ["[]", "7", "{}", "not json"])
def test_a_file_without_a_conversation(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(VicunaError):
        transcript.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        "x",
        {},
        {"messages": 3},
        {"messages": [7]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
    ],
)
def test_a_damaged_store_reads_as_an_empty_chat(stored: Any) -> None:
    assert transcript.read_messages(stored) == []


def test_the_last_question_and_the_unanswered_one() -> None:
    question, reply = Message("user", "q"), Message("assistant", "r")
    assert transcript.split_unanswered([question, reply]) == ([question, reply], "")
    assert transcript.split_unanswered([question, reply, question]) == ([question, reply], "q")
    assert transcript.before_last_question([question, reply, question, reply]) == ([question, reply], "q")
    assert transcript.before_last_question([]) == ([], "")
