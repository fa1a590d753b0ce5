"""Rows of the conversation room: records, rendering, encoding by template and kind of tokenizer, counting, replies."""

import functools
from pathlib import Path
from typing import Any

from growth_rows.inputs import conversation, prose, tokenizer, tokenizer_folder, turns, write_lines
from growth_rows.measuring import Row, Work
from vicuna import cli
from vicuna.conversation import (
    Message,
    ReplyDecoder,
    TokenCounter,
    encode,
    encode_prompt,
    from_record,
    get_template,
    render,
    template_names,
)

KINDS = ("sentencepiece", "bytes")
ROUNDS = (100, 400, 1_600)
CHARACTERS = (50_000, 200_000, 800_000)
NAMED = ("vicuna_v1.1", "chatml", "hf")  # by length, templates differ in nothing


def rows() -> list[Row]:
    """All rows of the room."""
    named = [name for name in template_names() if name != "hf"]
    one_turn = {"plain"}  # templates of a single round
    return [
        Row("records: turns of one", _record, (4_000, 16_000, 64_000), "rounds"),
        *(
            Row(f"render {name}: turns", functools.partial(_render, name), (1_000, 4_000, 16_000), "rounds")
            for name in named
            if name not in one_turn
        ),
        *(
            Row(
                f"encode {name}, {kind}: turns",
                functools.partial(_encode_turns, name, kind),
                ROUNDS,
                "rounds",
                (f"template {name}",),
            )
            for name in template_names()
            for kind in (KINDS if name != "hf" else ("bytes",))
            if name not in one_turn
        ),
        *(
            Row(
                f"encode {name}, {kind}: length of a message",
                functools.partial(_encode_length, name, kind, _plain),
                CHARACTERS,
                "characters",
                (f"template {name}",) if name in one_turn else (),
            )
            for name in (*NAMED, *one_turn)
            for kind in (KINDS if name != "hf" else ("bytes",))
        ),
        *(
            Row(
                f"encode {label}, {kind}: length of a message",
                functools.partial(_encode_length, "vicuna_v1.1", kind, text),
                CHARACTERS,
                "characters",
            )
            for kind in KINDS
            for label, text in (("one word", _one_word), ("half-open marks", _marks), ("spaces", _spaces))
        ),
        Row("count tokens: turns", _count, ROUNDS, "rounds"),
        *(
            Row(f"reply, {kind}: tokens", functools.partial(_reply, kind), (2_000, 8_000, 32_000), "tokens")
            for kind in KINDS
        ),
        Row("reply: half characters", _reply_of_halves, (2_000, 8_000, 32_000), "tokens"),
        Row("reply: a stop string that never ends", _reply_held, (2_000, 8_000, 32_000), "tokens"),
        Row("template show: turns", _show, ROUNDS, "rounds", ("verb template",)),
    ]


def _record(size: int, _: Path) -> Work:
    row = conversation("one", turns(size, 4))
    return lambda: from_record(row)


def _render(name: str, size: int, _: Path) -> Work:
    messages = turns(size)
    return lambda: render(messages, get_template(name))


def _encode_turns(name: str, kind: str, size: int, _: Path) -> Work:
    messages, template, chosen = turns(size), get_template(name), tokenizer(kind)
    encode(messages[:2], template, chosen)  # what is looked up once for each tokenizer
    return lambda: encode(messages, template, chosen)


def _encode_length(name: str, kind: str, text: Any, size: int, _: Path) -> Work:
    messages = [Message("user", text(size)), Message("assistant", "Yes.")]
    template, chosen = get_template(name), tokenizer(kind)
    encode_prompt([Message("user", "a")], template, chosen)
    return lambda: encode(messages, template, chosen)


def _plain(size: int) -> str:
    return prose(size // 4)[:size]


def _one_word(size: int) -> str:
    return "ab" * (size // 2)


def _marks(size: int) -> str:
    return "<|im_start" * (size // 10)


def _spaces(size: int) -> str:
    return " " * size


def _count(size: int, _: Path) -> Work:
    messages, template, chosen = turns(size), get_template("vicuna_v1.1"), tokenizer("bytes")
    counter = TokenCounter(template, chosen)
    counter(messages[:2])
    return lambda: counter(messages)


def _decode(ids: list[int], kind: str, *stop: str) -> Work:
    chosen, template = tokenizer(kind), get_template("vicuna_v1.1")

    def work() -> None:
        decoder = ReplyDecoder(template, chosen, stop)
        for token in ids:
            decoder.push([token])
        decoder.finish()

    return work


def _ids(text: str, kind: str) -> list[int]:
    return encode_prompt([Message("user", text)], get_template("plain"), tokenizer(kind))


def _reply(kind: str, size: int, _: Path) -> Work:
    return _decode(_ids(prose(4 * size), kind)[:size], kind)


def _reply_of_halves(size: int, _: Path) -> Work:
    first_byte = _ids("é", "sentencepiece")[-2]
    return _decode([first_byte] * size, "sentencepiece")


def _reply_held(size: int, _: Path) -> Work:
    return _decode(_ids("a" * 4 * size, "bytes")[:size], "bytes", "a" * 200 + "b")


def _show(size: int, room: Path) -> Work:
    path = write_lines(room / "one.jsonl", [conversation("one", turns(size))])
    words = ["template", "show", "chatml", "--record", str(path), "--tokenizer", str(tokenizer_folder("bytes"))]

    def work() -> None:
        assert cli.main(words) == 0

    return work
