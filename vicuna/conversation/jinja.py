"""Jinja chat templates: our templates exported, and a tokenizer's own one cut into segments.

`to_jinja` writes the loop of `render` as a `chat_template`, so that other servers prompt our models with the same
bytes; `save_template` writes it into a model's folder, `load_template` reads the template's name from there.
`hf_segments` finds messages and marks in the text that a tokenizer's own chat template renders: the template `hf`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from vicuna.conversation.message import Message, TemplateError
from vicuna.conversation.render import Segment
from vicuna.conversation.templates import BOS, EOS, HF, Marks, Template, get_template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.io.files import atomic_file
from vicuna.io.jsonl import read_json, write_json
from vicuna.io.model_files import read_model_json

TEMPLATE_FILE = "vicuna_template.json"
JINJA_FILE = "chat_template.jinja"


def to_jinja(template: Template) -> str:
    """The template as Jinja source for a tokenizer's `chat_template`: renders the same bytes as `render`.

    Raises:
        TemplateError: the template is `hf`, which is Jinja already and in the tokenizer.
    """
    if template.name == HF:
        raise TemplateError("the template 'hf' is the tokenizer's own Jinja; there is nothing to export")
    build = _jinja_system_in_user if template.system_in_user else _jinja_system_alone
    generation = _emit(template.assistant.before)
    return build(template) + f"{{%- if add_generation_prompt -%}}{generation}{{%- endif -%}}"


def _literal(text: str) -> str:
    """A Jinja expression for a mark."""
    names = {BOS: "bos_token", EOS: "eos_token"}
    pieces = [piece for piece in re.split(f"([{BOS}{EOS}])", text) if piece]
    return " ~ ".join(names.get(piece) or _quote(piece) for piece in pieces) or "''"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _emit(*texts: str) -> str:
    """Print marks and expressions; an argument that begins with `=` is an expression."""
    expressions = [text[1:] if text.startswith("=") else _literal(text) for text in texts if text]
    return f"{{{{- {' ~ '.join(expressions)} -}}}}" if expressions else ""


CONTENT = "=message['content']"


def _branch_reply(template: Template) -> str:
    before, after = template.assistant
    return _emit(before, template.reply_lead, CONTENT, template.reply_end, after)


def _jinja_system_alone(template: Template) -> str:
    default = ""
    if template.default_system is not None:
        default = (
            "{%- if not messages or messages[0]['role'] != 'system' -%}"
            + _emit(template.system.before, template.default_system, template.system.after)
            + "{%- endif -%}"
        )

    def branch(marks: Marks) -> str:
        return _emit(marks.before, CONTENT, marks.after)

    return (
        _emit(template.begin)
        + default
        + "{%- for message in messages -%}"
        + "{%- if message['role'] == 'assistant' -%}"
        + _branch_reply(template)
        + "{%- elif message['role'] == 'user' -%}"
        + branch(template.user)
        + "{%- elif message['role'] == 'system' -%}"
        + branch(template.system)
        + "{%- else -%}"
        + branch(template.tool)
        + "{%- endif -%}{%- endfor -%}"
    )


def _jinja_system_in_user(template: Template) -> str:
    before, after = template.system
    collect = f"{{%- set waiting.text = waiting.text ~ {_literal(before)} ~ message['content'] ~ {_literal(after)} -%}}"
    alone = (
        "{%- if waiting.text -%}"
        + _emit(template.user.before, "=waiting.text", template.user.after)
        + "{%- set waiting.text = '' -%}{%- endif -%}"
    )
    return (
        _emit(template.begin)
        + "{%- set waiting = namespace(text='') -%}"
        + "{%- for message in messages -%}"
        + "{%- if message['role'] == 'system' -%}"
        + "{%- if message['content'] -%}"
        + collect
        + "{%- endif -%}"
        + "{%- elif message['role'] == 'user' -%}"
        + _emit(template.user.before, "=waiting.text", CONTENT, template.user.after)
        + "{%- set waiting.text = '' -%}"
        + "{%- else -%}"
        + alone
        + "{%- if message['role'] == 'assistant' -%}"
        + _branch_reply(template)
        + "{%- else -%}"
        + _emit(template.tool.before, CONTENT, template.tool.after)
        + "{%- endif -%}{%- endif -%}{%- endfor -%}"
        + alone
    )


def save_template(template: Template, model_directory: Path | str) -> None:
    """Write into a model's folder the name of its template, and the template as Jinja for its tokenizer."""
    folder = Path(model_directory)
    write_json(folder / TEMPLATE_FILE, {"template": template.name})
    if template.name == HF:
        return
    with atomic_file(folder / JINJA_FILE) as file:
        file.write(to_jinja(template))
    # A chat_template inside the tokenizer's configuration would stand beside the file and contradict it.
    path = folder / "tokenizer_config.json"
    if path.exists() and "chat_template" in (tokenizer_config := read_json(path)):
        del tokenizer_config["chat_template"]
        with atomic_file(path) as file:
            file.write(json.dumps(tokenizer_config, indent=2, ensure_ascii=False) + "\n")


def load_template(model_directory: Path | str) -> Template | None:
    """The template that a model's folder names, or None if it names none. The folder's own name is not looked at.

    Raises:
        TemplateError: it names one we do not know.
    """
    path = Path(model_directory) / TEMPLATE_FILE
    if not path.exists():
        return None
    value = read_model_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("template"), str):
        raise TemplateError(f'{path}: expected {{"template": NAME}}; write the name of the model\'s template there')
    return get_template(value["template"])


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
        TemplateError: the tokenizer has no chat template, the template refuses the messages, or it changes them so
            that they cannot be found in the text.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError("the tokenizer has no chat template, so the template 'hf' cannot be used; name another one")
    text = _apply(tokenizer, messages, [message.content for message in messages], add_generation_prompt)
    placeholders = [f"\ue000{index}\ue001" for index in range(len(messages))]
    outline = _apply(tokenizer, messages, placeholders, add_generation_prompt)
    pieces = re.split("\ue000([0-9]+)\ue001", outline)
    marks, order = pieces[0::2], [int(piece) for piece in pieces[1::2]]
    contents = _contents(messages, text, marks, order)

    parts = [Segment(marks[0], True)]
    for index, content, mark in zip(order, contents, marks[1:], strict=True):
        if messages[index].role != "assistant":
            parts += [Segment(content, False), Segment(mark, True)]
            continue
        written = "".join(part.text for part in parts)
        prompt = _apply(tokenizer, messages[:index], [message.content for message in messages[:index]], True)
        if not written.startswith(prompt):
            raise TemplateError(
                f"the tokenizer's chat template does not write message {index} the way it prompts for it, "
                "so training and serving would differ; name another template"
            )
        lead = written[len(prompt) :]
        if lead:
            last = parts.pop()
            assert last.is_mark and last.text.endswith(lead), "the lead of a reply is part of the mark before it"
            parts += [Segment(last.text[: -len(lead)], True), Segment(lead, True, index)]
        end = match.end() if (match := control_pattern.search(mark)) else 0
        parts += [Segment(content, False, index), Segment(mark[:end], True, index), Segment(mark[end:], True)]
    return [part for part in parts if part.text]


def _contents(messages: Sequence[Message], text: str, marks: list[str], order: list[int]) -> list[str]:
    """The contents as they are in the rendered text: as given, or stripped as some templates do."""
    for change in (str, str.strip):
        contents = [change(messages[index].content) for index in order]
        rebuilt = marks[0] + "".join(content + mark for content, mark in zip(contents, marks[1:], strict=True))
        if rebuilt == text and len(set(order)) == len(order) == len(messages):
            return contents
    raise TemplateError(
        "the tokenizer's chat template leaves out or rewrites messages, so what is trained cannot be told from what "
        "is not; name another template"
    )


def _apply(tokenizer: Tokenizer, messages: Sequence[Message], contents: list[str], add_generation_prompt: bool) -> str:
    turns = [{"role": m.role, "content": content} for m, content in zip(messages, contents, strict=True)]
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # whatever a template raises: it is somebody's program
        raise TemplateError(f"the tokenizer's chat template refuses these messages: {error}") from error
    return str(rendered)
