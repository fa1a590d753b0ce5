"""JSON arrays cut into their values, for every size of chunk."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vicuna.data.read.arrays import ArrayReader, BrokenArrayError


def cut(text: bytes, size: int) -> list[Any]:
    """The values of an array, read in chunks of a size."""
    chunks = iter([text[at : at + size] for at in range(0, len(text), size)])
    window = ArrayReader(next(chunks), lambda: next(chunks, b""))
    found = []
    while (place := window.next_value()) is not None:
        data = window.value()
        assert text[place : place + len(data)] == data
        found.append(json.loads(data))
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},: é漢\n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='k"\\]'), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(JSON, max_size=6), size=st.integers(1, 40), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_an_array_is_cut_where_a_parser_would_cut_it(
    rows: list[Any], size: int, indent: int | None, ascii: bool
) -> None:
    text = " \n" * (indent or 0) + json.dumps(rows, indent=indent, ensure_ascii=ascii) + "\n" * (indent or 0)
    if text[0] != "[":
        size += 2  # a file's first chunk has more than space in it
    assert cut(text.encode(), size) == rows


def test_a_break_names_its_byte() -> None:
    with pytest.raises(BrokenArrayError) as raised:
        cut(b'[1, "a" 2]', 3)
    assert raised.value.place == 8
