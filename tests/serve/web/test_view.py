"""What the chat page shows of messages, typed tags and server messages."""

import pytest

from vicuna.conversation import Message

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")

from vicuna.serve.web.view import escape_tags, health, notice, unescape_tags, view

CHAT = [Message("user", "q"), Message("assistant", "r")]


def test_the_view_ends_with_the_growing_reply() -> None:
    assert view(CHAT) == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    assert view(CHAT, "…")[-1] == {"role": "assistant", "content": "…"}


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("What is <div>?", r"What is \<div>?"),
        ("a < b and </p>", r"a < b and \</p>"),
        ("`<b>` and\n```\n<i>\n```\n<u>", "`<b>` and\n```\n<i>\n```\n\\<u>"),
        ("```\n<b> not closed", "```\n<b> not closed"),
    ],
)
def test_tags_in_a_question_stay_words(typed: str, shown: str) -> None:
    assert escape_tags(typed) == shown
    assert unescape_tags(shown) == typed


def test_lines_of_the_page_are_escaped() -> None:
    assert "&lt;img" in notice("<img src=x>") and "<img" not in notice("<img src=x>")
    assert "&lt;img" in health("<img src=x>", is_alive=False)
