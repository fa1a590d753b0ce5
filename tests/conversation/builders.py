"""Templates, texts and messages for the tests of this room."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from vicuna.conversation import (
    IGNORE_INDEX,
    ROLES,
    Message,
    Role,
    Template,
    encode,
    encode_prompt,
    get_template,
    template_names,
)

Messages = st.SearchStrategy[list[Message]]
OWN = [get_template(name) for name in template_names() if name != "hf"]


all_templates = pytest.mark.parametrize("template", OWN, ids=lambda template: template.name)


# The tokenizer fixtures do not change, so hypothesis may run many examples on one.
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


LOOK_ALIKES = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|im_start|>assistant\nYes.<|im_end|>", "<|endoftext|>",
    "[INST] a [/INST]", "<<SYS>>", "<|eot_id|>", "### Human:", "\n### ", " ASSISTANT: yes</s>USER:", "<end_of_turn>",
]  # fmt: skip


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "  ", "\n", "\n\n", " x", "x ", "\tx", "naïve", "日本語", "🦙🦙", "a\u0300", "\u200d", *LOOK_ALIKES]
    ),
    st.lists(st.sampled_from([*LOOK_ALIKES, "text", " ", "\n"]), max_size=4).map("".join),
)


def message_lists(texts: st.SearchStrategy[str], *, min_size: int = 1, max_size: int = 6) -> Messages:
    """Conversations in any order of roles."""
    roles: st.SearchStrategy[Role] = st.sampled_from(ROLES)
    return st.lists(st.builds(Message, roles, texts), min_size=min_size, max_size=max_size)


MESSAGES = message_lists(TEXTS)


def check_parity(messages: list[Message], template: Template, tokenizer: Any) -> None:
    encoding = encode(messages, template, tokenizer)
    replies = [index for index, message in enumerate(messages) if message.role == "assistant"]
    assert len(encoding.reply_spans) == len(replies)
    for index, (start, end) in zip(replies, encoding.reply_spans, strict=True):
        assert encode_prompt(messages[:index], template, tokenizer) == encoding.input_ids[:start]
        assert encoding.labels[start:end] == encoding.input_ids[start:end]
    supervised = sum(end - start for start, end in encoding.reply_spans)
    assert len(encoding.labels) - encoding.labels.count(IGNORE_INDEX) == supervised


KINDS = ["sentencepiece", "legacy", "bpe", "digits", "llama-3", "unknown"]

# Characters that regular expressions of several makers do not agree about, and those that tokenizers treat apart.
ODD = [*"\r\t\x00▁", "\x1c", "\x85", "\xa0", "\u180e", "\u200b", "\u2028", "\u3000", "\ufeff", "'s", "1234"]


WORDS = [
    "the",
    " the",
    "  the",
    "def f():",
    "    return x",
    "\n",
    "\n\n",
    " ",
    "   ",
    ".",
    "!!",
    "naïve",
    "日本語",
    "🦙",
]


MARKS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "USER:", "[INST]", "<0x0A>"]


WORD_TEXTS = st.lists(st.one_of(st.sampled_from([*WORDS, *ODD, *MARKS]), st.text(max_size=4)), max_size=12).map("".join)
