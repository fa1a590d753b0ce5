"""Rows of what all rooms go through: texts to a terminal, secrets out of texts, the small files of a model's folder."""

import functools
import json
from pathlib import Path

from growth_rows.measuring import STREAMING_BOUND, Row, Work
from vicuna.io.jsonl import read_jsonl
from vicuna.io.model_files import check_regex, parse_model_json
from vicuna.io.secrets import redact
from vicuna.io.terminal import printable, printable_lines
from vicuna.weights.files.tensors import parse_header
from vicuna.weights.gguf.card import read_front_matter

CHARACTERS = (50_000, 200_000, 800_000)
WHOLE = 10**9
TEXTS = {"escapes": "\x1b", "accents": "é, à; ", "joiners": "\u200d", "bidi marks": "\u202eab"}


def rows() -> list[Row]:
    """All rows of the room."""
    return [
        *(
            Row(f"terminal: {name}", functools.partial(_shown, text), CHARACTERS, "characters")
            for name, text in TEXTS.items()
        ),
        Row("terminal: one line of a long text", _printable, CHARACTERS, "characters"),
        *(
            Row(f"redact: {text!r}", functools.partial(_redact, text), CHARACTERS, "characters")
            for text in ("://a:x", "sk-", "Bearer ", "key=")
        ),
        Row("JSON lines", _lines, (20_000, 80_000, 320_000), "lines", memory_bound=STREAMING_BOUND),
        Row("model file: numbers", _model_json, (50_000, 200_000, 800_000), "numbers"),
        Row("model file: pattern", _pattern, (60, 240, 960), "alternatives"),
        Row("safetensors header: tensors", _header, (3_000, 12_000, 48_000), "tensors"),
        Row("README: front matter", _card, (4_000, 16_000, 64_000), "bytes"),
    ]


def _shown(text: str, size: int, _: Path) -> Work:
    given = text * (size // len(text))
    return lambda: printable_lines(given, limit=WHOLE)


def _printable(size: int, _: Path) -> Work:
    given = "\x1b[2J" * (size // 4)
    return lambda: printable(given)


def _redact(text: str, size: int, _: Path) -> Work:
    given = text * (size // len(text))
    return lambda: redact(given)


def _lines(size: int, room: Path) -> Work:
    path = room / "lines.jsonl"
    path.write_text('{"a": [1, 2, 3], "b": "text"}\n' * size)

    def work() -> None:
        for _ in read_jsonl(path):
            pass

    return work


def _model_json(size: int, _: Path) -> Work:
    data = json.dumps({"a": list(range(size))}).encode()
    return lambda: parse_model_json(data, "config.json", max_parts=WHOLE)


def _pattern(size: int, _: Path) -> Work:
    pattern = "(a|b)" * size
    return lambda: check_regex(pattern, "tokenizer.json")


def _header(size: int, _: Path) -> Work:
    tensors = {f"t{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(size)}
    header = json.dumps(tensors).encode()
    return lambda: parse_header(header, None, "model.safetensors")


def _card(size: int, room: Path) -> Work:
    path = room / "README.md"
    path.write_text("---\ntags:\n" + "- t\n" * (size // 4) + "---\nText\n")
    return lambda: read_front_matter(path)
