"""Blocks of chat pages to Markdown, and which texts are a page's HTML."""

import pytest

from tests.data.html.builders import SVG, box_2023
from vicuna.data.html.walker import is_page, looks_like_html, page_text, to_markdown


def test_page_markers_and_counters_go() -> None:
    marker = (
        f'<div class="text-xs"><button>{SVG}</button><span class="flex-grow">2 / 3</span><button>{SVG}</button></div>'
    )
    counter = '<div class="flex gap-3"><span>Copy512 chars / 88 words</span></div>'
    assert to_markdown(f'{marker}<div class="markdown prose"><p>Yes.</p></div>{counter}') == "Yes."


def test_an_answer_that_is_a_fraction_stays() -> None:
    assert to_markdown('<div class="markdown prose"><p>Simplified:</p><p>1 / 3</p></div>') == "Simplified:\n\n1 / 3"


@pytest.mark.parametrize("gap", ["", "\n", "\n    "])
def test_blocks_come_out_the_same_with_and_without_line_breaks_between_them(gap: str) -> None:
    parts = [
        '<div class="markdown prose">',
        "<h2>Plan</h2>",
        "<p>One.</p>",
        "<ul>",
        "<li>a</li>",
        "<li>b</li>",
        "</ul>",
    ]
    assert to_markdown(gap.join([*parts, "<p>End.</p>", "</div>"])) == "## Plan\n\nOne.\n\n- a\n- b\n\nEnd."


def test_lists_nest_and_hold_code() -> None:
    box = box_2023("sh", "ls\n")
    html = f"<ol><li><p>Run</p>{box}</li><li><p>Then</p><ul><li>a<ul><li>b</li></ul></li></ul></li></ol>"
    assert to_markdown(html) == "1. Run\n\n   ```sh\n   ls\n   ```\n\n2. Then\n\n   - a\n     - b"


def test_a_list_keeps_its_first_number() -> None:
    assert to_markdown('<ol start="3"><li>c</li><li>d</li></ol>') == "3. c\n4. d"


def test_tables_escape_the_bar() -> None:
    html = (
        '<table><thead><tr><th>a</th><th style="text-align: right">b</th></tr></thead>'
        "<tbody><tr><td><code>x|y</code></td><td>1 | 2</td></tr></tbody></table>"
    )
    assert to_markdown(html) == "| a | b |\n| --- | ---: |\n| `x\\|y` | 1 \\| 2 |"


@pytest.mark.parametrize(
    "text",
    [
        "Use `<div>` for that.",
        '```html\n<div class="markdown prose">x</div>\n```',
        "<html> is the root element, and <p> a paragraph.",
        "vector<int> v;",
    ],
)
def test_text_about_html_is_no_html(text: str) -> None:
    assert not looks_like_html(text)


def test_human_turns_that_are_a_page_element() -> None:
    html = '<div class="min-h-[20px] flex whitespace-pre-wrap">a &lt; b\n    c</div>'
    assert is_page(html)
    assert page_text(html) == "a < b\n    c"
    assert not is_page("<div>why is this red?</div>")
    assert not is_page("vector<int> __init__")


def test_a_cell_keeps_its_breaks_and_begins_no_list() -> None:
    html = "<table><tr><th>a</th></tr><tr><td>- one <br> - two</td></tr></table>"
    assert to_markdown(html) == "| a |\n| --- |\n| - one <br> - two |"
