"""`vicuna template`: the conversation templates, listed or shown.

`show` prints the text that training and serving use, made by `vicuna.conversation`; what is supervised is green (or
between ⟦ ⟧ where there are no colours).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vicuna.conversation import (
    IGNORE_INDEX,
    Message,
    Template,
    encode,
    from_record,
    get_template,
    load_tokenizer,
    render,
    template_names,
    to_jinja,
)
from vicuna.errors import UsageError, VicunaError
from vicuna.io.jsonl import read_jsonl
from vicuna.io.log import info
from vicuna.io.terminal import Styled, style, write, write_text
from vicuna.options import command, option, parse
from vicuna.weights.resolve import NAMES, resolve_model

DEFAULT_MESSAGES = [
    Message("user", "Hello! Who are you?"),
    Message("assistant", "I am Vicuna, a chat assistant."),
    Message("user", "What does </s> mean in a prompt?"),
    Message("assistant", "In LLaMA's vocabulary it ends a sequence; here it is only text."),
]


@dataclass(frozen=True)
class Options:
    """`vicuna template` options."""

    action: Literal["list", "show"] = option(help="list the templates, or show one", positional=True)
    name: str | None = option(None, help="the template to show", positional=True)
    tokenizer: Path | None = option(None, help=f"a model whose tokenizer cuts the text (`hf` needs one): {NAMES}")
    record: Path | None = option(None, help="show the first record of this JSON lines file instead of an example")
    jinja: bool = option(False, help="print the template as a Jinja chat_template for other servers")


@command
def main(argv: list[str] | None = None) -> int:
    """List or show templates on stdout."""
    options = parse(Options, argv, prog="vicuna template", description="List or show the conversation templates.")
    if options.action == "list":
        for name in template_names():
            write(f"{name:<12}  {get_template(name).source}")
        return 0
    if options.name is None:
        raise UsageError(f"vicuna template show: name a template: {', '.join(template_names())}")
    template = get_template(options.name)
    if options.jinja:
        write_text(to_jinja(template))
        return 0
    messages = _messages(options.record)
    if options.tokenizer is None:
        rendering = render(messages, template)
        write_text(colored(rendering.text, rendering.reply_spans))
    else:
        _show_tokens(messages, template, resolve_model(options.tokenizer, weights=False).folder)
    return 0


def colored(text: str, spans: list[tuple[int, int]]) -> list[str | Styled]:
    """The text with the supervised spans in green, or between brackets where there are no colours."""
    parts: list[str | Styled] = []
    position = 0
    for start, end in spans:
        parts += [text[position:start], style(text[start:end], "green", plain="⟦{}⟧")]
        position = end
    return [*parts, text[position:]]


def _messages(record: Path | None) -> list[Message]:
    if record is None:
        return DEFAULT_MESSAGES
    value = next(read_jsonl(record), None)
    if value is None:
        raise VicunaError(f"{record} is empty; give a file with at least one record")
    messages = list(from_record(value).messages)
    if not messages:
        raise VicunaError(f"{record}: its first record has no messages; put one with messages first")
    return messages


def _show_tokens(messages: list[Message], template: Template, folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    encoding = encode(messages, template, tokenizer)
    text, spans = "", []
    for token, label in zip(encoding.input_ids, encoding.labels, strict=True):
        piece = tokenizer.convert_ids_to_tokens([token])[0] + " "
        if label != IGNORE_INDEX:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    write_text(colored(text, merged))
    num_supervised = len(encoding.labels) - encoding.labels.count(IGNORE_INDEX)
    info(f"{len(encoding.input_ids)} tokens, {num_supervised} trained")


if __name__ == "__main__":
    sys.exit(main(None))
