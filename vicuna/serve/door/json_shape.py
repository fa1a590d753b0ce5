"""Nesting and number of the parts of a JSON text, counted before it is parsed.

Called by `bodies`, and by whoever parses a text that a stranger sent inside another one. A parser makes an object of
some 60 bytes of every two characters `{}`; counting costs a few passes over the bytes, whatever they say.
"""

from vicuna.serve.errors import InvalidRequest

MAX_NESTING = 32
MAX_PARTS = 200_000  # values, of lists and objects together; token ids of a bare prompt are most


def check_shape(data: bytes, *, max_parts: int = MAX_PARTS, max_nesting: int = MAX_NESTING) -> int:
    """The number of parts of a JSON text, which need not be valid.

    Raises:
        InvalidRequest: there are too many, or they are nested too deep.
    """
    num_brackets = data.count(b"[") + data.count(b"{")
    num_parts = num_brackets + data.count(b",")
    if num_parts <= max_parts and num_brackets <= max_nesting:
        return num_parts  # strings may hold some of these, so it has no more
    plain = _outside_strings(data, max_parts)
    brackets = plain.translate(_ALIKE, delete=_ALL_BUT_BRACKETS)
    num_parts = brackets.count(b"[") + plain.count(b",")
    if num_parts > max_parts:
        raise InvalidRequest(f"the JSON has {num_parts:,} parts, {max_parts:,} are taken; send less at once")
    for _ in range(max_nesting):
        if not brackets:
            return num_parts
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    if brackets:  # or they do not match, which is no JSON either
        raise InvalidRequest(f"the JSON is nested deeper than {max_nesting} levels, or its brackets do not match")
    return num_parts


def _outside_strings(data: bytes, max_parts: int) -> bytes:
    """What stands outside of strings."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    num_strings = plain.count(b'"') // 2
    if num_strings > 2 * max_parts + 2:  # each key and each value may be one
        raise InvalidRequest(f"the JSON has {num_strings:,} strings, {2 * max_parts:,} are taken; send less at once")
    return b"".join(plain.split(b'"')[::2])


_ALIKE = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
