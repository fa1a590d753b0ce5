"""The templates as data: the text before and after a message of each role.

`render` turns messages and a template into text with one loop; `jinja` writes the same loop for other servers. A new
template is a new entry of the table. `BOS` and `EOS` are placeholders for the tokenizer's own tokens (`<s>` and `</s>`
of LLaMA).
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from vicuna.conversation.message import Role, TemplateError
from vicuna.errors import nearest

BOS, EOS = "\x02", "\x03"


class Marks(NamedTuple):
    """The text before and after a message."""

    before: str
    after: str


@dataclass(frozen=True)
class Template:
    """How messages become a prompt.

    A reply is `reply_lead + content + reply_end`: what the model has to generate, and so what is supervised. The prompt
    for it ends with `assistant.before`; `assistant.after` follows it before the next message.

    Attributes:
        begin: text before everything, once.
        default_system: the system text of a conversation that does not begin with a system message; None for no text.
        system_in_user: the system message stands inside the next user message instead of on its own.
        stop: strings that end a reply although they are not single tokens.
        stop_tokens: tokens that end a reply, besides the tokenizer's own end of sequence.
        bos_token, eos_token: the text for BOS and EOS where no tokenizer is given.
        source: where the format is defined.
    """

    name: str
    system: Marks
    user: Marks
    assistant: Marks
    tool: Marks
    source: str
    reply_lead: str = ""
    reply_end: str = EOS
    begin: str = ""
    default_system: str | None = None
    system_in_user: bool = False
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    bos_token: str = "<s>"
    eos_token: str = "</s>"

    def __hash__(self) -> int:
        return hash(self.name)  # hashing all texts would take longer than the lookups that it is for

    def marks(self, role: Role) -> Marks:
        """The marks of a role."""
        marks: Marks = getattr(self, role)
        return marks

    def resolve(self, bos_token: str | None = None, eos_token: str | None = None) -> "Template":
        """The template with BOS and EOS replaced by these tokens (by the template's own where None)."""
        return _resolve(
            self,
            self.bos_token if bos_token is None else bos_token,
            self.eos_token if eos_token is None else eos_token,
        )


@functools.lru_cache(maxsize=256)
def _resolve(template: Template, bos: str, eos: str) -> Template:
    def filled(value: object) -> object:
        if isinstance(value, str):
            return value.replace(BOS, bos).replace(EOS, eos)
        if isinstance(value, Marks):
            return Marks(*map(filled, value))  # type: ignore[arg-type]
        return tuple(map(filled, value)) if isinstance(value, tuple) else value

    written = ("system", "user", "assistant", "tool", "reply_end", "begin", "stop", "stop_tokens")
    changes: dict[str, Any] = {name: filled(getattr(template, name)) for name in written}
    return dataclasses.replace(template, bos_token=bos, eos_token=eos, **changes)


_FASTCHAT = "github.com/lm-sys/FastChat docs/vicuna_weights_version.md"

# The template `hf` has no texts of its own: it is the Jinja chat template of the tokenizer.
HF = "hf"

_TABLE = (
    Template(
        name="vicuna_v1.1",
        begin=BOS,
        default_system=(
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        ),
        system=Marks("", " "),
        user=Marks("USER: ", " "),
        assistant=Marks("ASSISTANT:", ""),
        tool=Marks("TOOL: ", " "),
        reply_lead=" ",
        source=_FASTCHAT,
    ),
    Template(
        name="vicuna_v0",
        begin=BOS,
        default_system=(
            "A chat between a curious human and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the human's questions."
        ),
        system=Marks("", "\n### "),
        user=Marks("Human: ", "\n### "),
        assistant=Marks("Assistant:", " "),
        tool=Marks("Tool: ", "\n### "),
        reply_lead=" ",
        reply_end="\n###",
        stop=("\n###",),
        source=_FASTCHAT,
    ),
    Template(
        name="alpaca",
        begin=BOS,
        default_system=(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        ),
        system=Marks("", "\n\n"),
        user=Marks("### Instruction:\n", "\n\n"),
        assistant=Marks("### Response:", "\n\n"),
        tool=Marks("### Input:\n", "\n\n"),
        source="github.com/tatsu-lab/stanford_alpaca train.py",
    ),
    Template(
        name="chatml",
        system=Marks("<|im_start|>system\n", "<|im_end|>\n"),
        user=Marks("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=Marks("<|im_start|>assistant\n", "\n"),
        tool=Marks("<|im_start|>tool\n", "<|im_end|>\n"),
        reply_end="<|im_end|>",
        stop_tokens=("<|im_end|>",),
        source="github.com/openai/openai-python v0.27 chatml.md",
    ),
    Template(
        name="llama-2",
        system_in_user=True,
        system=Marks("<<SYS>>\n", "\n<</SYS>>\n\n"),
        user=Marks(f"{BOS}[INST] ", " [/INST]"),
        assistant=Marks("", ""),
        tool=Marks(f"{BOS}[INST] ", " [/INST]"),
        reply_lead=" ",
        reply_end=f" {EOS}",
        source="github.com/meta-llama/llama llama/generation.py",
    ),
    Template(
        name="llama-3",
        begin=BOS,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        system=Marks("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        user=Marks("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant=Marks("<|start_header_id|>assistant<|end_header_id|>\n\n", ""),
        tool=Marks("<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"),
        reply_end="<|eot_id|>",
        stop_tokens=("<|eot_id|>", "<|eom_id|>"),
        source="github.com/meta-llama/llama-models models/llama3 prompt_format.md",
    ),
    Template(
        name="mistral",
        begin=BOS,
        system_in_user=True,
        system=Marks("", "\n\n"),
        user=Marks("[INST] ", " [/INST]"),
        assistant=Marks("", ""),
        tool=Marks("[TOOL_RESULTS] ", " [/TOOL_RESULTS]"),
        reply_lead=" ",
        source="huggingface.co/mistralai/Mistral-7B-Instruct-v0.2 tokenizer_config.json",
    ),
    Template(
        name="zephyr",
        system=Marks("<|system|>\n", f"{EOS}\n"),
        user=Marks("<|user|>\n", f"{EOS}\n"),
        assistant=Marks("<|assistant|>\n", "\n"),
        tool=Marks("<|tool|>\n", f"{EOS}\n"),
        source="huggingface.co/HuggingFaceH4/zephyr-7b-beta tokenizer_config.json",
    ),
    Template(
        name="gemma",
        begin=BOS,
        bos_token="<bos>",
        eos_token="<eos>",
        system_in_user=True,
        system=Marks("", "\n\n"),
        user=Marks("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=Marks("<start_of_turn>model\n", "\n"),
        tool=Marks("<start_of_turn>tool\n", "<end_of_turn>\n"),
        reply_end="<end_of_turn>",
        stop_tokens=("<end_of_turn>",),
        source="ai.google.dev/gemma/docs/core/prompt-structure",
    ),
    Template(
        name="plain",
        begin=BOS,
        system=Marks("", "\n"),
        user=Marks("", "\n"),
        assistant=Marks("", "\n"),
        tool=Marks("", "\n"),
        source="no marks: for base models that only complete text",
    ),
    Template(
        name=HF,
        system=Marks("", ""),
        user=Marks("", ""),
        assistant=Marks("", ""),
        tool=Marks("", ""),
        source="the chat_template of the tokenizer",
    ),
)

_BY_NAME = {template.name: template for template in _TABLE}


def template_names() -> list[str]:
    """The names `get_template` knows, in the table's order."""
    return list(_BY_NAME)


def get_template(name: str) -> Template:
    """The template of that name.

    Raises:
        TemplateError: there is none; the message lists the known names and the nearest.
    """
    if name not in _BY_NAME:
        raise TemplateError(f"unknown conversation template '{name}'; {nearest(name, _BY_NAME)}")
    return _BY_NAME[name]
