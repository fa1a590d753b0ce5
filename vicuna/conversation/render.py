"""Messages to text: the one loop that puts a prompt together.

The result is a list of segments, each marked as written by the template or by a message, and as part of a reply or not.
`tokens` turns segments into ids; `render` joins them into text with the spans of the replies.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vicuna.conversation.message import Message, Role, TemplateError
from vicuna.conversation.templates import HF, Template


class Segment(NamedTuple):
    """A piece of the text.

    Attributes:
        is_mark: written by the template, so its control tokens become control ids; elsewhere they are only text.
        reply: the index of the message whose reply it belongs to, which is supervised; None elsewhere.
    """

    text: str
    is_mark: bool
    reply: int | None = None


@dataclass(frozen=True)
class Rendering:
    """A conversation as text.

    Attributes:
        reply_spans: `[start, end)` character offsets of the replies, end mark included. `text[:start]` is exactly the
            prompt for that reply.
    """

    text: str
    reply_spans: list[tuple[int, int]]


def render(
    messages: Sequence[Message],
    template: Template,
    *,
    add_generation_prompt: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> Rendering:
    """The text of a conversation, and where its replies are.

    Args:
        add_generation_prompt: end with what stands before the next reply.
        bos_token, eos_token: the tokenizer's (the template's own where None).

    Raises:
        TemplateError: the template is `hf`, which only a tokenizer can render (`encode`, `encode_prompt`).
    """
    if template.name == HF:
        raise TemplateError("the template 'hf' is in the tokenizer: use it with a tokenizer, or name another template")
    resolved = template.resolve(bos_token, eos_token)
    return join(segments(messages, resolved, add_generation_prompt=add_generation_prompt))


def join(parts: Sequence[Segment]) -> Rendering:
    """Segments as text, with the span of each reply."""
    spans: dict[int, tuple[int, int]] = {}
    position = 0
    for part in parts:
        end = position + len(part.text)
        if part.reply is not None:
            spans[part.reply] = (spans.get(part.reply, (position, end))[0], end)
        position = end
    return Rendering("".join(part.text for part in parts), list(spans.values()))


def segments(messages: Sequence[Message], template: Template, *, add_generation_prompt: bool = False) -> list[Segment]:
    """The conversation as segments. `template` is resolved: BOS and EOS are filled in."""
    if template.default_system is not None and not (messages and messages[0].role == "system"):
        messages = [Message("system", template.default_system), *messages]
    parts = [Segment(template.begin, is_mark=True)]
    pending: list[Segment] = []  # system text that stands inside the next user message
    for index, message in enumerate(messages):
        before, after = _marks(template, message.role)
        if message.role == "system" and template.system_in_user:
            if message.content:
                pending += [before, Segment(message.content, False), after]
        elif message.role == "user":
            parts += [before, *pending, Segment(message.content, False), after]
            pending = []
        else:
            if pending:
                parts += _as_user_message(pending, template)
                pending = []
            if message.role == "assistant":
                lead, end = Segment(template.reply_lead, True, index), Segment(template.reply_end, True, index)
                parts += [before, lead, Segment(message.content, False, index), end, after]
            else:
                parts += [before, Segment(message.content, False), after]
    if pending:
        parts += _as_user_message(pending, template)
    if add_generation_prompt:
        parts.append(Segment(template.assistant.before, True))
    return [part for part in parts if part.text]


@functools.lru_cache(maxsize=256)
def _marks(template: Template, role: Role) -> tuple[Segment, Segment]:
    before, after = template.marks(role)
    return Segment(before, True), Segment(after, True)


def _as_user_message(pending: list[Segment], template: Template) -> list[Segment]:
    """System text that no user message follows, as a user message of its own."""
    before, after = _marks(template, "user")
    return [before, *pending, after]
