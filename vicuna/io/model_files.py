"""The small files of a model's folder, read within limits: a folder may come from anybody.

Whoever reads configuration, tokenizer, template, index or adapter settings of a model reads them here: only plain files
(a link to one is followed, as the hub's cache consists of links), of bounded size, JSON of bounded nesting and number
of parts, and values of a configuration in ranges that no model leaves. Called by `conversation`, `weights`, `train` and
`serve`; tensors' headers are checked by `vicuna.weights.files.tensors`.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.terminal import printable

MAX_JSON_BYTES = 16 << 20  # of a configuration; the largest known, with thousands of added tokens, have 1 to 3 MiB
MAX_JSON_PARTS = 500_000  # objects, lists and values in it
MAX_TOKENIZER_BYTES = 256 << 20  # of tokenizer.json and the like; the largest known have 35 MiB
MAX_TOKENIZER_PARTS = 8_000_000
MAX_TEMPLATE_BYTES = 1 << 20  # of a chat template
MAX_NESTING = 64
MAX_SHOWN_CHARACTERS = 80  # of a value in a message
MAX_LAYERS = 1_000
# The whole numbers of a configuration, and the largest that is taken; the largest models known reach a tenth of these.
LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 21,
    "num_hidden_layers": MAX_LAYERS,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "max_position_embeddings": 1 << 30,
    "sliding_window": 1 << 30,
}
NUMBERS = ("rms_norm_eps", "rope_theta", "initializer_range", "attention_dropout", "partial_rotary_factor")
LARGEST_NUMBER = 1e30  # of those, and of a rope's
TEXTS = ("model_type", "hidden_act", "torch_dtype", "dtype")
ROPES = ("rope_parameters", "rope_scaling")
MAX_ROPE_FACTORS = 1 << 14
MAX_REGEX_CHARACTERS = 8_192
MAX_REPEATS = 3  # without an upper bound, one after the other in a branch of a regular expression
MAX_BOUNDED_REPEAT = 100  # more counts as no bound
MAX_ALTERNATIVES = 1_000
MAX_GROWTH = 64  # by which a tokenizer's replacements may lengthen a text
MAX_INSERT_CHARACTERS = 256  # that it puts before each text
MAX_TOKEN_CHARACTERS = 4_096
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
)
CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "processor_config.json",
)


def read_model_bytes(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The content of a plain file.

    Raises:
        VicunaError: it is missing, no plain file, or larger than `max_bytes`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
    except FileNotFoundError:
        raise VicunaError(f"{path}: no such file") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VicunaError(f"{path} is not a plain file; fetch it again")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise VicunaError(f"{path} has more than {max_bytes:,} bytes, the most that is read of it; fetch it again")
    return data


def read_model_text(path: Path, max_bytes: int = MAX_TEMPLATE_BYTES) -> str:
    """The text of a plain file.

    Raises:
        VicunaError: as `read_model_bytes`; it is not UTF-8.
    """
    try:
        return read_model_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise VicunaError(f"{path}: byte {error.start} is not UTF-8; fetch it again") from None


def read_model_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES, max_parts: int = MAX_JSON_PARTS) -> Any:
    """The value in a JSON file.

    Raises:
        VicunaError: as `read_model_bytes`; it is not JSON, or is nested deeper than `MAX_NESTING`, or has more than
            `max_parts` parts.
    """
    return parse_model_json(read_model_bytes(path, max_bytes), str(path), max_parts=max_parts)


def parse_model_json(data: bytes, where: str, *, max_parts: int = MAX_JSON_PARTS) -> Any:
    """As `read_model_json`, of bytes that have been read; `where` names them."""
    num_parts = data.count(b"[") + data.count(b"{") + data.count(b",")
    if num_parts > max_parts:  # each takes tens of bytes of memory, whatever it says
        raise VicunaError(f"{where} has some {num_parts:,} values, and {max_parts:,} are taken; fetch it again")
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise VicunaError(f"{where}: byte {error.start} is not UTF-8; fetch it again") from None
    except json.JSONDecodeError as error:
        raise VicunaError(f"{where}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
        raise VicunaError(f"{where}: not JSON that can be read ({error})") from None
    _check_nesting(value, where)
    return value


def read_model_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES, max_parts: int = MAX_JSON_PARTS) -> JsonObject:
    """The object in a JSON file.

    Raises:
        VicunaError: as `read_model_json`; it holds something else.
    """
    value = read_model_json(path, max_bytes=max_bytes, max_parts=max_parts)
    if not isinstance(value, dict):
        raise VicunaError(f"{path} holds a {type(value).__name__}, not a JSON object; copy it from the model again")
    return value


def _check_nesting(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return
    raise VicunaError(f"{where} is nested more than {MAX_NESTING} deep, the most that is taken; fetch it again")


def _inner(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]


def shown(value: object) -> str:
    """A value of such a file in a message: one line, not longer than a message can bear."""
    return printable(repr(value), limit=MAX_SHOWN_CHARACTERS)


def check_config(config: Any, where: str) -> JsonObject:
    """A model's configuration whose values are of the types and in the ranges that a model can have.

    What is not there is not missed; what a program needs, it asks for.

    Raises:
        VicunaError: a value cannot be; the message names key, value and limit.
    """
    if not isinstance(config, dict):
        raise VicunaError(f"{where} holds a {type(config).__name__}, not a JSON object; copy it from the model again")
    for key, largest in LARGEST.items():
        value = config.get(key)
        is_off = value is None or (key == "sliding_window" and value in (0, False))
        if not is_off and (type(value) is not int or not 1 <= value <= largest):
            raise _refused(where, key, value, f"a whole number from 1 to {largest:,}")
    for key in NUMBERS:
        if (value := config.get(key)) is not None and not is_number(value):
            raise _refused(where, key, value, f"a number from 0 to {LARGEST_NUMBER:g}")
    for key in TEXTS:
        if (value := config.get(key)) is not None and not (isinstance(value, str) and len(value) <= 100):
            raise _refused(where, key, value, "a name")
    for key in ROPES:
        _check_rope(config.get(key), f"{where}: {key}", can_nest=True)
    return config


def _check_rope(rope: Any, where: str, *, can_nest: bool) -> None:
    if rope is None:
        return
    if not isinstance(rope, dict) or len(rope) > 100:
        raise VicunaError(f"{where} is {shown(rope)}; it takes a table of settings; fetch the model again")
    for key, value in rope.items():
        if isinstance(value, dict) and can_nest and key not in ("rope_type", "type"):  # settings by kind of layer
            _check_rope(value, f"{where}, {shown(key)}", can_nest=False)
        elif key in ("rope_type", "type"):
            if value is not None and not isinstance(value, str):
                raise _refused(where, key, value, "a name")
        elif isinstance(value, list):
            if len(value) > MAX_ROPE_FACTORS or not all(map(is_number, value)):
                raise _refused(where, key, value, f"a list of at most {MAX_ROPE_FACTORS:,} numbers")
        elif not (value is None or isinstance(value, bool) or is_number(value)):
            raise _refused(where, key, value, f"a number from 0 to {LARGEST_NUMBER:g}")


def is_number(value: object, largest: float = LARGEST_NUMBER) -> bool:
    """Is it a number from 0 to `largest`?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= largest


def _refused(where: str, key: str, value: object, what: str) -> VicunaError:
    return VicunaError(f"{where}: {printable(key, limit=MAX_SHOWN_CHARACTERS)} is {shown(value)}; it takes {what}")


def check_model_files(folder: Path) -> None:
    """See that a tokenizer's files and those beside it may be given to libraries, which have no limits of their own.

    Raises:
        VicunaError: one is too large, no plain file or no such JSON, or the tokenizer's rules would cost more than a
            text's length.
    """
    for name in CONFIG_FILES:
        if (folder / name).exists():
            value = read_model_object(folder / name)
            if name == "config.json":
                check_config(value, str(folder / name))
            length = value.get("model_max_length")  # 10**30 and a bit stands for none
            if name == "tokenizer_config.json" and length is not None and not is_number(length, 1e31):
                raise _refused(str(folder / name), "model_max_length", length, "a number")
    for name in TOKENIZER_FILES:
        if (folder / name).exists():
            data = read_model_bytes(folder / name, MAX_TOKENIZER_BYTES)
            if name.endswith(".json"):
                value = parse_model_json(data, str(folder / name), max_parts=MAX_TOKENIZER_PARTS)
                if name == "tokenizer.json":
                    check_tokenizer_rules(value, str(folder / name))
    for path in (folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))[:100]):
        if path.exists():
            read_model_bytes(path, MAX_TEMPLATE_BYTES)


def check_tokenizer_rules(value: Any, where: str) -> None:
    """See that the rules of a `tokenizer.json` cost time and space in proportion to a text's length.

    Raises:
        VicunaError: a regular expression, a replacement or a token is refused; the message says why.
    """
    if not isinstance(value, dict):
        raise VicunaError(f"{where} holds a {type(value).__name__}, not a JSON object; copy it from the model again")
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        growth = 1.0
        for rule in _rules(value.get(part)):
            pattern, content = rule.get("pattern"), rule.get("content")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            if isinstance(regex, str):
                check_regex(regex, f"{where}: {part}")
            if rule.get("type") == "Replace" and isinstance(content, str):
                text = pattern.get("String") if isinstance(pattern, dict) else None
                growth *= max(1.0, len(content) / len(text) if isinstance(text, str) and text else 1 + len(content))
            prepend = rule.get("prepend")
            if isinstance(prepend, str) and len(prepend) > MAX_INSERT_CHARACTERS:
                raise _refused(where, f"{part}: prepend", prepend, f"at most {MAX_INSERT_CHARACTERS} characters")
        if growth > MAX_GROWTH:
            raise VicunaError(
                f"{where}: the replacements of its {part} make a text {growth:.3g} times as long; at most "
                f"{MAX_GROWTH} times is taken"
            )
    model = value.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    for entry in vocabulary if isinstance(vocabulary, dict | list) else ():
        token = entry[0] if isinstance(entry, list) and entry else entry  # with its score in a list
        if isinstance(token, str) and len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused(where, "a token", token, f"at most {MAX_TOKEN_CHARACTERS:,} characters")


def _rules(part: Any) -> Iterator[Mapping[str, Any]]:
    """The rules in a part of a tokenizer, which may be a sequence of them, in sequences."""
    waiting = [part]
    while waiting:
        rule = waiting.pop()
        if isinstance(rule, list):
            waiting += rule
        elif isinstance(rule, dict):
            yield rule
            waiting += [inner for inner in rule.values() if isinstance(inner, list | dict)]


_CLASS = r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]"
_TOKEN = re.compile(
    rf"(?P<escape>\\(?:[pPxuo]\{{[^}}]*\}}|.))|(?P<set>{_CLASS})|(?P<open>\()|(?P<close>\))|(?P<or>\|)"
    r"|(?P<repeat>(?:[*+?]|\{\d*,?\d*\})[?+]?)|(?P<other>.)",
    re.DOTALL,
)


def check_regex(pattern: str, where: str, *, max_repeats: int = MAX_REPEATS) -> None:
    """See that matching a regular expression takes time of a small power of a text's length, not exponential time.

    Raises:
        VicunaError: it is too long, has a repetition within a repetition, `(a+)+`, or more than `max_repeats` without
            an upper bound in one branch.
    """
    if len(pattern) > MAX_REGEX_CHARACTERS:
        raise VicunaError(
            f"{where}: a regular expression has {len(pattern):,} characters, and {MAX_REGEX_CHARACTERS:,} are taken"
        )
    groups = [_Group()]
    num_branches = 1
    has_repeat = is_fixed = False  # in what a repetition that follows would repeat
    for token in _TOKEN.finditer(pattern):
        kind, group = token.lastgroup, groups[-1]
        if kind == "open":
            groups.append(_Group())
        elif kind == "close" and len(groups) > 1:
            groups.pop()
            groups[-1].num_unbounded += max(group.num_unbounded, group.most)
            groups[-1].has_repeat |= group.has_repeat
        elif kind == "or":
            group.num_unbounded, group.most = 0, max(group.num_unbounded, group.most)
            num_branches += 1
        elif kind == "repeat":
            is_unbounded, is_fixed = _kind_of_repeat(token[0])
            if has_repeat and (is_unbounded or not is_fixed):
                raise VicunaError(
                    f"{where}: the regular expression {shown(pattern)} repeats a repetition, which can take for ever"
                )
            group.num_unbounded += is_unbounded
            group.has_repeat |= not is_fixed
        if groups[-1].num_unbounded > max_repeats:
            raise VicunaError(
                f"{where}: the regular expression {shown(pattern)} has more than {max_repeats} repetitions in one "
                "branch, which can take for ever"
            )
        has_repeat = group.has_repeat if kind == "close" else kind == "repeat" and not is_fixed
    if num_branches > MAX_ALTERNATIVES:
        raise VicunaError(
            f"{where}: a regular expression has {num_branches:,} branches, and {MAX_ALTERNATIVES:,} are taken"
        )


@dataclass
class _Group:
    """A group of a regular expression while it is read.

    Attributes:
        num_unbounded, most: repetitions without an upper bound, in its present branch and the most of an earlier one.
        has_repeat: whether it holds a repetition of no fixed number.
    """

    num_unbounded: int = 0
    most: int = 0
    has_repeat: bool = False


def _kind_of_repeat(repeat: str) -> tuple[bool, bool]:
    """Whether a repetition has no upper bound (or a large one), and whether its number is fixed, or 0 or 1."""
    if repeat[0] != "{":
        return repeat[0] in "*+", repeat[0] == "?"
    low, comma, high = re.fullmatch(r"\{(\d*)(,?)(\d*)\}[?+]?", repeat).groups()  # type: ignore[union-attr]
    if not comma:
        return False, True
    if not high or len(high) > 3 or int(high) > MAX_BOUNDED_REPEAT:
        return True, False
    return False, low == high or high == "1"
