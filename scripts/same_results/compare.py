"""Two files that should be the same: byte for byte, apart from times, measured memory and the program's version."""

import io
import json
import re
from pathlib import Path
from typing import Any

LEFT_OUT_KEYS = (
    *("tool", "tstamp", "train_seconds", "tokens_per_second", "memory_bytes", "peak_memory_bytes"),
    "manifest_sha256",  # the hash of a text that names its tool
)
LEFT_OUT_FILES = frozenset({"throughput.svg"})  # drawn from times
# What may differ, and what is put in its place. A version that is a whole number is that of a step or a format: it
# counts.
LEFT_OUT = (
    (re.compile(rf'("(?:{"|".join(LEFT_OUT_KEYS)})": )(?:"[^"\n]*"|[-+.\deE]+)'), r"\1null"),
    (re.compile(r'("version": )"\d+\.\d+[^"\n]*"'), r"\1null"),
    (re.compile(r"\b(vicuna|version):? \d+\.\d+[\w.]*"), r"\1 -"),
    (re.compile(r"\btook [\d.,]+ (?:ms|s|min|h)\b"), "took -"),
    (re.compile(r"^(peak memory: ).*$", re.M), r"\1-"),
    (re.compile(r"^[0-9a-f]{64}(  vicuna_(?:delta|manifest)\.json)$", re.M), r"-\1"),
)
SHOWN_CHARACTERS = 100


def file_difference(before: Path, after: Path) -> str | None:
    """The first difference of two files in words; None if there is none that counts."""
    if not before.exists() or not after.exists():
        return f"only in {'BEFORE' if before.exists() else 'AFTER'}"
    old, new = before.read_bytes(), after.read_bytes()
    if old == new:
        return None
    try:
        one, other = (_without_what_may_differ(text.decode("utf-8")) for text in (old, new))
    except UnicodeDecodeError:
        return f"byte {_first_place(old, new):,}; {len(old):,} and {len(new):,} bytes"
    return None if one == other else _value_of_text_difference(one, other) or _lines_difference(one, other)


def _without_what_may_differ(text: str) -> str:
    for pattern, replacement in LEFT_OUT:
        text = pattern.sub(replacement, text)
    return text


def _first_place(old: bytes | str, new: bytes | str) -> int:
    return next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def _lines_difference(old: str, new: str) -> str:
    old_lines, new_lines = (io.StringIO(text, newline="\n").readlines() for text in (old, new))
    for number, (one, other) in enumerate(zip(old_lines, new_lines, strict=False), 1):
        if one != other:
            return f"line {number}{_value_of_text_difference(one, other) or _text_difference(one, other)}"
    return f"{len(old_lines)} and {len(new_lines)} lines"


def _text_difference(old: str, new: str) -> str:
    at = _first_place(old, new)
    start = max(0, at - SHOWN_CHARACTERS // 3)
    return f", character {at + 1}: {_shown(old[start:])} and {_shown(new[start:])}"


def _value_of_text_difference(old: str, new: str) -> str | None:
    """Of two texts that are JSON objects or lists; None if they are not, or only written differently."""
    try:
        one, other = json.loads(old), json.loads(new)
    except (ValueError, RecursionError):
        return None
    return _value_difference(one, other) if isinstance(one, dict | list) else None


def _value_difference(old: Any, new: Any, place: str = " ") -> str | None:
    """The first difference of two JSON values, with its place; the order of keys counts."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in new:
                return f"{place}.{key} is only in BEFORE"
            if found := _value_difference(old[key], new[key], f"{place}.{key}"):
                return found
        if more := [key for key in new if key not in old]:
            return f"{place}.{more[0]} is only in AFTER"
        return None if list(old) == list(new) else f"{place}: keys are in another order"
    if isinstance(old, list) and isinstance(new, list):
        for at, (one, other) in enumerate(zip(old, new, strict=False)):
            if found := _value_difference(one, other, f"{place}[{at}]"):
                return found
        return None if len(old) == len(new) else f"{place}: {len(old)} and {len(new)} items"
    if isinstance(old, str) and isinstance(new, str) and old != new:
        return f"{place}{_text_difference(old, new)}"
    return None if repr(old) == repr(new) else f"{place}: {_shown(old)} and {_shown(new)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
