"""Every template's text, written out; and the Jinja export, which must be the same bytes."""

import pytest
from hypothesis import given

from tests.conversation.builders import OWN, TEXTS, all_templates, message_lists
from vicuna.conversation import Message, Template, TemplateError, get_template, render

DIALOGUE = [
    Message("system", "Be kind."),
    Message("user", "Hello!"),
    Message("assistant", "Hi."),
    Message("user", "How are you?"),
    Message("assistant", "Fine."),
]

EXPECTED = {
    "vicuna_v1.1": "<s>Be kind. USER: Hello! ASSISTANT: Hi.</s>USER: How are you? ASSISTANT: Fine.</s>",
    "vicuna_v0": (
        "<s>Be kind.\n### Human: Hello!\n### Assistant: Hi.\n### Human: How are you?\n### Assistant: Fine.\n### "
    ),
    "alpaca": (
        "<s>Be kind.\n\n### Instruction:\nHello!\n\n### Response:Hi.</s>\n\n"
        "### Instruction:\nHow are you?\n\n### Response:Fine.</s>\n\n"
    ),
    "chatml": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\nFine.<|im_end|>\n"
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello! [/INST] Hi. </s><s>[INST] How are you? [/INST] Fine. </s>"
    ),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nFine.<|eot_id|>"
    ),
    "mistral": "<s>[INST] Be kind.\n\nHello! [/INST] Hi.</s>[INST] How are you? [/INST] Fine.</s>",
    "zephyr": (
        "<|system|>\nBe kind.</s>\n<|user|>\nHello!</s>\n<|assistant|>\nHi.</s>\n"
        "<|user|>\nHow are you?</s>\n<|assistant|>\nFine.</s>\n"
    ),
    "gemma": (
        "<bos><start_of_turn>user\nBe kind.\n\nHello!<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n"
        "<start_of_turn>user\nHow are you?<end_of_turn>\n<start_of_turn>model\nFine.<end_of_turn>\n"
    ),
    "plain": "<s>Be kind.\nHello!\nHi.</s>\nHow are you?\nFine.</s>\n",
}

# What the model has to write for the first reply of DIALOGUE.
FIRST_REPLY = {
    "vicuna_v1.1": " Hi.</s>",
    "vicuna_v0": " Hi.\n###",
    "alpaca": "Hi.</s>",
    "chatml": "Hi.<|im_end|>",
    "llama-2": " Hi. </s>",
    "llama-3": "Hi.<|eot_id|>",
    "mistral": " Hi.</s>",
    "zephyr": "Hi.</s>",
    "gemma": "Hi.<end_of_turn>",
    "plain": "Hi.</s>",
}


def test_every_template_is_tested() -> None:
    assert set(EXPECTED) == {template.name for template in OWN}


@all_templates
def test_text(template: Template) -> None:
    assert render(DIALOGUE, template).text == EXPECTED[template.name]


@all_templates
def test_reply_spans(template: Template) -> None:
    rendering = render(DIALOGUE, template)
    replies = [rendering.text[start:end] for start, end in rendering.reply_spans]
    assert replies == [FIRST_REPLY[template.name], FIRST_REPLY[template.name].replace("Hi", "Fine")]


def test_default_system_text() -> None:
    rendering = render([Message("user", "Hello!")], get_template("vicuna_v1.1"), add_generation_prompt=True)
    assert rendering.text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Hello! ASSISTANT:"
    )


def test_system_text_without_a_user_message_gets_a_turn_of_its_own() -> None:
    messages = [Message("system", "Be kind."), Message("assistant", "Hi.")]
    assert render(messages, get_template("gemma")).text == (
        "<bos><start_of_turn>user\nBe kind.\n\n<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n"
    )


@all_templates
@given(messages=message_lists(TEXTS, min_size=0, max_size=7))
def test_a_reply_begins_where_its_prompt_ends(template: Template, messages: list[Message]) -> None:
    rendering = render(messages, template)
    replies = [index for index, message in enumerate(messages) if message.role == "assistant"]
    assert len(replies) == len(rendering.reply_spans)
    for index, (start, end) in zip(replies, rendering.reply_spans, strict=True):
        assert render(messages[:index], template, add_generation_prompt=True).text == rendering.text[:start]
        assert messages[index].content in rendering.text[start:end]


def test_bos_and_eos_are_the_tokenizers() -> None:
    rendering = render(DIALOGUE, get_template("mistral"), bos_token="", eos_token="<|end|>")
    assert rendering.text == "[INST] Be kind.\n\nHello! [/INST] Hi.<|end|>[INST] How are you? [/INST] Fine.<|end|>"


def test_control_characters_in_a_message_are_kept() -> None:
    assert "\x02 and \x03" in render([Message("user", "\x02 and \x03")], get_template("vicuna_v1.1")).text


def test_hf_needs_a_tokenizer() -> None:
    with pytest.raises(TemplateError, match="use it with a tokenizer"):
        render(DIALOGUE, get_template("hf"))
