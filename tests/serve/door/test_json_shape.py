"""Nesting and number of the parts of a JSON text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vicuna.serve.door.json_shape import check_shape
from vicuna.serve.errors import InvalidRequest

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a[]{},:"\\\u2028', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\[', max_size=3), inner, max_size=4),
    max_leaves=30,
)


def nesting(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nesting, inner), default=0)


def parts(value: Any) -> int:
    """Brackets and commas outside of strings."""
    inner = list(value.values() if isinstance(value, dict) else value) if isinstance(value, dict | list) else None
    return 0 if inner is None else 1 + max(0, len(inner) - 1) + sum(map(parts, inner))


@given(VALUES, st.booleans())
def test_counts_are_those_of_the_value(value: Any, is_ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    depth, count = nesting(value), parts(value)
    assert check_shape(data, max_nesting=depth, max_parts=count) >= count
    if depth:
        with pytest.raises(InvalidRequest, match=r"nested deeper|parts"):
            check_shape(data, max_nesting=depth - 1, max_parts=count)
    if count > 1:
        with pytest.raises(InvalidRequest, match=r"parts, .* are taken"):
            check_shape(data, max_nesting=depth, max_parts=count - 1)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"]" * 9 + b"[" * 9, b'[{"a":' * 50_000])
def test_what_is_no_json_ends_too(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_shape(data, max_nesting=4)


def test_many_strings_are_refused_before_they_are_cut_apart() -> None:
    with pytest.raises(InvalidRequest, match="strings, 20 are taken"):
        check_shape(b'"" ' * 1_000 + b"," * 11, max_parts=10)
