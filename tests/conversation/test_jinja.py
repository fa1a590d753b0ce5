"""Templates as Jinja: the same bytes as `render`, kept in a model's folder; a tokenizer's own template is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.conversation.builders import TEXTS, all_templates, check_parity, many, message_lists
from vicuna.conversation import (
    Message,
    Template,
    TemplateError,
    encode,
    get_template,
    load_template,
    render,
    save_template,
    to_jinja,
)
from vicuna.io.jsonl import read_json, write_json


def test_a_model_folder_remembers_its_template(tmp_path: Any, bpe_tokenizer: Any) -> None:
    from transformers import AutoTokenizer

    bpe_tokenizer.save_pretrained(tmp_path)
    write_json(
        tmp_path / "tokenizer_config.json", read_json(tmp_path / "tokenizer_config.json") | {"chat_template": "x"}
    )
    assert load_template(tmp_path) is None
    save_template(get_template("vicuna_v1.1"), tmp_path)
    assert load_template(tmp_path) == get_template("vicuna_v1.1")
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    text = reloaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("the user's questions. USER: Hi ASSISTANT:")


def run_jinja(source: str, messages: list[Message], *, add_generation_prompt: bool, template: Template) -> str:
    """Render as Hugging Face tokenizers do."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    turns: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in messages]
    return environment.from_string(source).render(
        messages=turns,
        add_generation_prompt=add_generation_prompt,
        bos_token=template.bos_token,
        eos_token=template.eos_token,
    )


@all_templates
@given(messages=message_lists(TEXTS, min_size=0, max_size=7), add_generation_prompt=st.booleans())
def test_jinja_is_the_same_bytes(template: Template, messages: list[Message], add_generation_prompt: bool) -> None:
    expected = render(messages, template, add_generation_prompt=add_generation_prompt).text
    source = to_jinja(template)
    assert run_jinja(source, messages, add_generation_prompt=add_generation_prompt, template=template) == expected


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
    check_parity([*given_system, *turns], get_template("hf"), bpe_tokenizer)


def test_hf_reads_the_tokenizers_template(bpe_tokenizer: Any) -> None:
    messages = [Message("user", "hello"), Message("assistant", "hi"), Message("user", "<|im_end|>")]
    encoding = encode(messages, get_template("hf"), bpe_tokenizer)
    assert encoding == encode(messages, get_template("chatml"), bpe_tokenizer)


def test_hf_without_a_chat_template_says_so(sentencepiece_tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        encode([Message("user", "hello")], get_template("hf"), sentencepiece_tokenizer)


def test_hf_template_that_rewrites_messages_is_refused(bpe_tokenizer: Any) -> None:
    class Rewriting:
        chat_template = "yes"

        def __getattr__(self, name: str) -> Any:
            return getattr(bpe_tokenizer, name)

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            return bpe_tokenizer(*arguments, **keywords)

        def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
            return "".join(turn["content"].upper() for turn in turns)

    rewriting: Any = Rewriting()
    with pytest.raises(TemplateError, match="leaves out or rewrites messages"):
        encode([Message("user", "hello")], get_template("hf"), rewriting)
