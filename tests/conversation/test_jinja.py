"""Templates as Jinja: the same bytes as `render`, kept in a model's folder."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.conversation.builders import TEXTS, all_templates, message_lists
from vicuna.conversation import (
    Message,
    Template,
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
