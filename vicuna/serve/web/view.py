"""What the chat page shows: the messages, the question box, the lines of text.

Called by `events` and `layout`; nothing here knows the server.
"""

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from vicuna.conversation import Message
from vicuna.io.markup import Markup

# Fenced and inline code; the group makes `split` return code at the odd positions.
CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)


def view(messages: Sequence[Message], growing: str | None = None) -> list[dict[str, str]]:
    """The messages as the chat shows them, with the reply that is still growing."""
    shown = [
        {"role": message.role, "content": escape_tags(message.content) if message.role == "user" else message.content}
        for message in messages
    ]
    return [*shown, {"role": "assistant", "content": growing}] if growing is not None else shown


def question_box(question: str | None = None, *, is_writing: bool = False) -> Any:
    """The question box: with a Stop button while a reply is written, with Send otherwise."""
    value = {} if question is None else {"value": question}
    return gr.Textbox(submit_btn=not is_writing, stop_btn=is_writing, **value)


def escape_tags(question: str) -> str:
    """A typed question as Markdown in which `<div>` is text; in code it is text without being escaped."""
    parts = CODE.split(question)
    return "".join(
        part if position % 2 else re.sub(r"(?<!\\)<(?=[a-zA-Z/!])", r"\<", part) for position, part in enumerate(parts)
    )


def unescape_tags(shown: str) -> str:
    """The inverse of `escape_tags`, for a question that comes back from the chat's edit box."""
    parts = CODE.split(shown)
    return "".join(
        part if position % 2 else re.sub(r"\\<(?=[a-zA-Z/!])", "<", part) for position, part in enumerate(parts)
    )


def notice(text: str, kind: str = "") -> str:
    """The line under the chat."""
    return str(Markup('<div class="notice {}" role="status">{}</div>').format(kind, text))


def health(text: str, *, is_alive: bool) -> str:
    """The line under the model picker, with its green or red dot."""
    return str(Markup('<div class="health {}">{}</div>').format("alive" if is_alive else "dead", text))
