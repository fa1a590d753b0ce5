"""A tokenizer's own chat template cut into segments: prompts equal what is trained, in a few renderings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conversation.builders import TEXTS, check_parity, many
from vicuna.conversation import Message, TemplateError, encode, encode_prompt, get_template
from vicuna.conversation.chat_template import TokenizerTemplate

HF = get_template("hf")
NUMBERED = (
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ messages|length + 1 }} assistant: {% endif %}"
)


class WithTemplate:
    """A tokenizer with another chat template."""

    def __init__(self, tokenizer: Any, source: Any) -> None:
        self._tokenizer, self.chat_template = tokenizer, source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._tokenizer(*arguments, **keywords)


def talk(number: int, text: str = "a") -> list[Message]:
    return [Message("user" if index % 2 == 0 else "assistant", text) for index in range(number)]


@many
@given(
    contents=st.lists(TEXTS, min_size=1, max_size=6),
    system=st.none() | TEXTS,
)
def test_prompt_tokens_are_training_tokens_with_the_tokenizers_own_template(
    bpe_tokenizer: Any, contents: list[str], system: str | None
) -> None:
    given_system = [] if system is None else [Message("system", system)]
    turns = [Message("user" if i % 2 == 0 else "assistant", content) for i, content in enumerate(contents)]
    check_parity([*given_system, *turns], HF, bpe_tokenizer)


def test_hf_reads_the_tokenizers_template(bpe_tokenizer: Any) -> None:
    messages = [Message("user", "hello"), Message("assistant", "hi"), Message("user", "<|im_end|>")]
    encoding = encode(messages, HF, bpe_tokenizer)
    assert encoding == encode(messages, get_template("chatml"), bpe_tokenizer)


def test_hf_without_a_chat_template_says_so(sentencepiece_tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        encode([Message("user", "hello")], HF, sentencepiece_tokenizer)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content|upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{{ messages[-1].content }}",
        "nothing",
        # what looks like the places of messages, and is none: too many, unknown ones, a number that is no index
        "{% for m in messages %}{% if '\ue000' in m.content %}{{ m.content * 999 }}{% endif %}{% endfor %}",
        "\ue000" + "9" * 5000 + "\ue001",
        "\ue0007\ue001",
        "{% for m in messages %}\ue000{{ '0' * loop.index }}\ue001{% endfor %}",
    ],
)
def test_hf_template_that_rewrites_messages_is_refused(bpe_tokenizer: Any, source: str) -> None:
    rewriting: Any = WithTemplate(bpe_tokenizer, source)
    with pytest.raises(TemplateError, match="leaves out or rewrites messages"):
        encode(talk(3, "hello"), HF, rewriting)


def count_rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of messages of each rendering from now on."""
    counts: list[int] = []
    render = TokenizerTemplate.render

    def counting(self: TokenizerTemplate, messages: Any, *args: Any, **kwargs: Any) -> str:
        counts.append(len(messages))
        return render(self, messages, *args, **kwargs)

    monkeypatch.setattr(TokenizerTemplate, "render", counting)
    return counts


def test_renderings_are_few_however_many_messages(bpe_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(talk(2), HF, bpe_tokenizer)
    rendered = []
    for number in (500, 2000):
        counts = count_rendered(monkeypatch)
        encode([*talk(number), Message("user", "x")], HF, bpe_tokenizer)
        rendered.append(sum(counts))
    assert rendered[1] < 6 * 2000
    assert rendered[1] < 4.4 * rendered[0]


def test_a_template_that_numbers_its_turns_is_checked_at_each_reply(bpe_tokenizer: Any) -> None:
    numbered: Any = WithTemplate(bpe_tokenizer, NUMBERED)
    check_parity(talk(60), HF, numbered)


def test_checking_each_reply_has_a_limit(bpe_tokenizer: Any) -> None:
    numbered: Any = WithTemplate(bpe_tokenizer, NUMBERED)
    with pytest.raises(
        TemplateError, match=r"the prompts of 600 messages would take more than 5\d,\d+ messages to render"
    ):
        encode(talk(600), HF, numbered)
    with pytest.raises(TemplateError, match="which is the limit"):  # long messages count as several
        encode([Message("user", "x" * 300_000), *talk(100)[1:]], HF, numbered)


def test_a_reply_that_is_prompted_for_otherwise_is_refused(bpe_tokenizer: Any) -> None:
    loop = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    source = loop + "{% if add_generation_prompt %}bot: {% endif %}"
    other: Any = WithTemplate(bpe_tokenizer, source)
    with pytest.raises(TemplateError, match="does not write message 1 the way it prompts for it"):
        encode(talk(4), HF, other)


def test_of_several_templates_the_default_is_used(bpe_tokenizer: Any) -> None:
    source = bpe_tokenizer.chat_template
    several: Any = WithTemplate(bpe_tokenizer, {"default": source, "rag": "x"})
    assert encode_prompt(talk(3), HF, several) == encode_prompt(talk(3), HF, bpe_tokenizer)
    without: Any = WithTemplate(bpe_tokenizer, {"rag": "x", "tool_use": "y"})
    with pytest.raises(TemplateError, match="several chat templates \\(rag, tool_use\\) and none is called default"):
        encode_prompt(talk(3), HF, without)


def test_no_messages_are_refused(bpe_tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="give at least one"):
        encode_prompt([], HF, bpe_tokenizer)
