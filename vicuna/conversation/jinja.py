"""Our templates as Jinja chat templates, for other servers.

`to_jinja` writes the loop of `render` as a `chat_template`, so that other servers prompt our models with the same
bytes; `save_template` writes it into a model's folder, `load_template` reads the template's name from there.
"""

import json
import re
from pathlib import Path

from vicuna.conversation.message import TemplateError
from vicuna.conversation.templates import BOS, EOS, HF, Marks, Template, get_template
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
