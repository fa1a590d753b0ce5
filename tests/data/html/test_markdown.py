"""Markdown syntax: delimiters that are long enough, links and tables."""

import pytest

from vicuna.data.html import markdown
from vicuna.data.html.escape import hide, show


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", ""),
        ("x", "`x`"),
        ("a`b", "``a`b``"),
        ("``", "` `` `"),
        (" x ", "`  x  `"),
        ("two\n lines", "`two lines`"),
    ],
)
def test_code_spans(code: str, expected: str) -> None:
    assert markdown.code_span(code) == expected


@pytest.mark.parametrize(
    ("code", "language", "expected"),
    [
        ("x\n", "py", "```py\nx\n```"),
        ("x", "", "```\nx\n```"),
        ("````", "", "`````\n````\n`````"),
        ("x", "a`b", "~~~a`b\nx\n~~~"),
    ],
)
def test_code_fences(code: str, language: str, expected: str) -> None:
    assert markdown.code_fence(code, language) == expected


def test_emphasis_leaves_space_outside_and_changes_its_mark_beside_another() -> None:
    assert show(markdown.emphasis(" word ", "**")) == " **word** "
    assert markdown.emphasis("  ", "**") == "  "
    inner = markdown.emphasis("both", "*")
    assert show(markdown.emphasis(inner, "*")) == "_*both*_"


def test_links() -> None:
    address = "https://example.org/a"
    assert show(markdown.link("here", address, 'a "b"', is_auto_linked=False)) == f'[here]({address} "a \\"b\\"")'
    assert show(markdown.link(address, address, None, is_auto_linked=False)) == f"<{address}>"
    assert show(markdown.link(address, address, None, is_auto_linked=True)) == address
    assert markdown.link("here", "", None, is_auto_linked=False) == "here"
    assert markdown.destination("/a(b", None) == "</a(b>"
    assert markdown.destination("/a(b)", None) == "/a(b)"


def test_rows_of_a_table_are_filled() -> None:
    table = "| a | b |\n| :---: | --- |\n| c |  |"
    assert markdown.table([["a", "b"], ["c"]], ["center"]) == table


def test_hidden_syntax_is_shown_again() -> None:
    assert hide("**") != "**" and show(f"{hide('**')}*") == "***"
