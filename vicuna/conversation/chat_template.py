"""A tokenizer's own chat template: the template `hf`.

`hf_segments` finds messages and marks in the text that the template renders. It costs a few renderings, however many
messages there are: one with the messages, one with a placeholder for each content, and the prompts of some replies.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from vicuna.conversation.message import Message, TemplateError
from vicuna.conversation.meter import Meter
from vicuna.conversation.render import Segment
from vicuna.conversation.tokenizer import Tokenizer

NUM_FIRST_CHECKED = 8
"""Replies whose prompts are rendered whatever stands before them; after these, the 16th, the 32nd, ... and the last."""
MAX_CHECKED_MESSAGES, CHECKED_PER_MESSAGE = 50_000, 8
"""In the prompts rendered for one conversation: so many messages, and so many more for each message that it has."""
CHARACTERS_PER_MESSAGE = 256
"""Count as one more message in these."""


def hf_segments(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    control_pattern: re.Pattern[str],
    *,
    add_generation_prompt: bool = False,
) -> list[Segment]:
    """The messages as segments of the text that the tokenizer's own chat template renders.

    The template is rendered twice, once with the messages and once with a placeholder for each content; the text
    between the placeholders is what the template writes, its marks. A reply begins where the prompt for it ends, and
    ends with the first control token behind its content.

    Raises:
        TemplateError: the tokenizer has no chat template, the template refuses the messages, it spends more than it
            may, or it changes them so that they cannot be found in the text.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError("the tokenizer has no chat template, so the template 'hf' cannot be used; name another one")
    template = TokenizerTemplate(tokenizer)
    contents = [message.content for message in messages]
    text = template.render(messages, contents, add_generation_prompt=add_generation_prompt)
    placeholders = [f"\ue000{index}\ue001" for index in range(len(messages))]
    outline = template.render(messages, placeholders, add_generation_prompt=add_generation_prompt)
    pieces = re.split("\ue000([0-9]+)\ue001", outline)
    marks, order = pieces[0::2], _order(pieces[1::2], len(messages))
    contents = _contents(messages, text, marks, order)

    leads = _Leads(template, messages, text, [index for index in order if messages[index].role == "assistant"])
    parts = [Segment(marks[0], True)]
    position = len(marks[0])  # in the text, where the next content begins
    for index, content, before, mark in zip(order, contents, marks, marks[1:], strict=False):
        if messages[index].role != "assistant":
            parts += [Segment(content, False), Segment(mark, True)]
        else:
            last = parts.pop()
            lead = leads.find(index, before, position)
            if not last.text.endswith(lead):
                raise _differs(index)
            cut = len(last.text) - len(lead)
            end = match.end() if (match := control_pattern.search(mark)) else 0
            parts += [Segment(last.text[:cut], True), Segment(lead, True, index)]
            parts += [Segment(content, False, index), Segment(mark[:end], True, index), Segment(mark[end:], True)]
        position += len(content) + len(mark)
    return [part for part in parts if part.text]


def _order(names: Sequence[str], number: int) -> list[int]:
    """The indices of the messages in the order of the placeholders' names; each must be there once."""
    if len(names) != number or set(names) != set(map(str, range(number))):
        raise _rewrites()
    return list(map(int, names))


def _contents(messages: Sequence[Message], text: str, marks: list[str], order: list[int]) -> list[str]:
    """The contents as they are in the rendered text: as given, or stripped as some templates do."""
    for change in (str, str.strip):
        contents = [change(messages[index].content) for index in order]
        if marks[0] + "".join(content + mark for content, mark in zip(contents, marks[1:], strict=True)) == text:
            return contents
    raise _rewrites()


def _rewrites() -> TemplateError:
    return TemplateError(
        "the tokenizer's chat template leaves out or rewrites messages, so what is trained cannot be told from what "
        "is not; name another template"
    )


class _Leads:
    """What stands between the prompt for a reply and its content.

    A prompt is rendered for some replies only, because each costs as much as all that comes before it: for the first
    ones, the last, those whose number is a power of two, and each one before which the template writes something that
    it wrote before no checked one. The others have the lead of those with the same mark before them.

    Args:
        text: the whole conversation, rendered.
        replies: the indices of its replies, in the order of the text.
    """

    def __init__(
        self, template: "TokenizerTemplate", messages: Sequence[Message], text: str, replies: Sequence[int]
    ) -> None:
        self._template, self._messages, self._text = template, messages, text
        self._checked = {*replies[:NUM_FIRST_CHECKED], *replies[-1:]}
        self._checked |= {replies[2**power - 1] for power in range(len(replies).bit_length())}
        self._limit = MAX_CHECKED_MESSAGES + CHECKED_PER_MESSAGE * (len(messages) + len(text) // CHARACTERS_PER_MESSAGE)
        self._left = self._limit
        self._known: dict[tuple[str, str], str] = {}  # by the mark before, and the role of the message before

    def find(self, index: int, before: str, position: int) -> str:
        """The lead of a reply.

        Args:
            index: of the message.
            before: the mark before its content, which begins at `position` of the text.

        Raises:
            TemplateError: it is not written the way it is prompted for, or the marks differ too often to check.
        """
        key = before, self._messages[index - 1].role if index else ""
        if index not in self._checked and key in self._known:
            return self._known[key]
        self._left -= 1 + index + position // CHARACTERS_PER_MESSAGE
        if self._left < 0:
            raise TemplateError(
                "the tokenizer's chat template writes another mark before each reply, and to check the prompts of "
                f"{len(self._messages):,} messages would take more than {self._limit:,} messages to render, which is "
                "the limit; split the conversation, or name another template"
            )
        earlier = self._messages[:index]
        prompt = self._template.render(earlier, [message.content for message in earlier], add_generation_prompt=True)
        if len(prompt) > position or not self._text.startswith(prompt):
            raise _differs(index)
        self._known[key] = self._text[len(prompt) : position]
        return self._known[key]


def _differs(index: int) -> TemplateError:
    return TemplateError(
        f"the tokenizer's chat template does not write message {index} the way it prompts for it, "
        "so training and serving would differ; name another template"
    )


class TokenizerTemplate:
    """The chat template of a tokenizer, for one conversation: rendered as transformers does, but within limits.

    All renderings have the same time, for templates that write a date, and share one budget.

    Raises:
        TemplateError: the template is not Jinja, or too long.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from vicuna.conversation.sandbox import compiled  # here, because Jinja takes longer than a light command in all

        source = tokenizer.chat_template
        if isinstance(source, dict):
            if "default" not in source:
                raise TemplateError(
                    f"the tokenizer has several chat templates ({', '.join(sorted(source))}) and none is called "
                    "default; name another template"
                )
            source = source["default"]
        self._template = compiled(source or "", str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__))
        self._meter, self._now = Meter(), datetime.now()
        self._values: dict[str, Any] = {"tools": None, "documents": None, **tokenizer.special_tokens_map}

    def render(self, messages: Sequence[Message], contents: Sequence[str], *, add_generation_prompt: bool) -> str:
        """The messages, with these contents, as text.

        Raises:
            TemplateError: the template refuses the messages, or spends more than it may.
        """
        if not messages:
            raise TemplateError(
                "the tokenizer's chat template refuses these messages: there is none; give at least one"
            )
        turns = [{"role": m.role, "content": content} for m, content in zip(messages, contents, strict=True)]
        values = self._values | {"add_generation_prompt": add_generation_prompt}
        return self._template.render(turns, self._meter, now=self._now, **values)
