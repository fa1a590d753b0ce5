"""Any Markdown, drawn as a chat page and read back, draws the same page again; any tree of elements keeps its text."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it.tree import SyntaxTreeNode

from tests.data.html import documents
from tests.data.html.chat_page import Page, parser
from vicuna.data.html.walker import HtmlError, to_markdown

PAGES = st.builds(Page, st.sampled_from((2023, 2024, 2025)), st.booleans())
# The same examples in each run; by hand raise their number and leave `derandomize` out.
QUICK = settings(
    max_examples=60, derandomize=True, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)

EMPTY = re.compile(r"<(p|h[1-6]|blockquote|em|strong|s|del|code)(?: [^<>]*)?>[\s\u200b]*</\1>")
ONE_LINE = re.compile(r"<(h\d)>.*?</\1>|<img [^>]*>", re.DOTALL)


def shown(page: str) -> str:
    """A page without what nobody sees: empty elements, space around breaks, emphasis twice over, space in lists."""
    page = re.sub(r">\n+<", "><", page)
    page = re.sub("</?p>", "", page.replace("</p><p>", "¶")) if "<li>" in page else page  # loose or tight
    page = ONE_LINE.sub(lambda found: re.sub(r" *(?:<br>)?\n", " ", found[0]), page)
    page = re.sub(r"<(em|strong|s)><br>\n?", r"<br><\1>", re.sub(r" *<br>\n*", "<br>", page))
    before = ""
    while page != before:
        before = page
        page = _without_doubles(re.sub(r"</(em|strong|s)><\1>", "", EMPTY.sub("", page)))
    return page


def _without_doubles(page: str) -> str:
    """`<em>a <em>b</em></em>` is one emphasis."""
    kept: list[str] = []
    around: list[tuple[str, bool]] = []
    for piece in re.split(r"(</?(?:em|strong|s)>)", page):
        if re.fullmatch(r"<(em|strong|s)>", piece):
            is_double = piece in [mark for mark, _ in around]
            around.append((piece, is_double))
        elif re.fullmatch(r"</(em|strong|s)>", piece):
            _, is_double = around.pop()
        else:
            is_double = False
        if not is_double:
            kept.append(piece)
    return "".join(kept)


def verbatim(markdown: str) -> list[str]:
    """Blocks of code and formulas, byte for byte."""
    nodes = SyntaxTreeNode(parser().parse(markdown)).walk()
    texts: dict[str, Callable[[str], str]] = {"fence": str, "code_block": str, "math_block": str.strip}
    return [texts[node.type](node.content) for node in nodes if node.type in texts]


def check(markdown: str, page: Page) -> None:
    drawn = page.draw(markdown + "\n")
    if re.search(r"<a [^>]*>\s*</a>", drawn):  # nothing to click on: such a link is left out
        return
    read = to_markdown(drawn)
    assert shown(page.draw(read)) == shown(drawn)
    assert to_markdown(page.draw(read)) == read
    assert verbatim(read) == verbatim(markdown + "\n")


@QUICK
@given(documents.words(), PAGES)
def test_hostile_words_come_back(markdown: str, page: Page) -> None:
    check(markdown, page)


@QUICK
@given(documents.inline(), PAGES)
def test_marks_links_code_and_formulas_in_a_line_come_back(markdown: str, page: Page) -> None:
    check(markdown, page)


@QUICK
@given(documents.tables(), PAGES)
def test_tables_come_back(markdown: str, page: Page) -> None:
    check(markdown, page)


@QUICK
@given(documents.documents(), PAGES)
def test_documents_come_back(markdown: str, page: Page) -> None:
    check(markdown, page)


@pytest.mark.parametrize(
    "markdown",
    [
        "**_both_** and ***both***",
        "*a* **b** *c***d**",
        "Write \\&amp; or \\<br>, and \\<https://example.org>.",
        "C:\\\\new\\\\table and \\\\\\*",
        "[x\\]: no reference",
        "- - - -\n- a",
        "- a\n\n* b\n\n- c",
        "1. a\n\n1) b\n\n1. c",
        "- > one\n\n  > two",
        "- a\n  | b |\n  | --- |\n  | c |",
        "- ```sh\n  ls\n\n  \tx  \n  ```\n  more",
        "---\n\n---\n\n```\nls\n```",
        "~~~~a`b\nx\n~~~~",
        '![a \\] b](x.png "t \\"u\\"") [a [b] c](</d e>)',
        "| a \\\\\\| b | `c \\| d` |\n| --- | :-: |\n| <br> | x<br>y |",
        "a\\\n\\* b\n1986\\. c\n\\# d\n\\=== \n\\--- | ---",
        "## C \\#\n\n# a \\##",
        "`` a ` b `` and \\`c\\` and ` `",
        "`a` \\` b",
        "<div>\n*raw*\n</div>\n\ntext <b>tag</b> vector<int>",
        "*a* \\*b",
        "\\[\nx\n\\]\n\n> \\[ y \\]\n>\n> - \\[ z \\]",
        "x\\\\  \ny",
        "5 * 3 * 2, snake_case_name, a~b~c, __init\\_\\_ f(*args, **kwargs\\)",
    ],
)
def test_what_was_once_read_wrongly(markdown: str) -> None:
    for year in (2023, 2024, 2025):
        check(markdown, Page(year))


TAGS = (
    *(
        "p",
        "div",
        "span",
        "b",
        "em",
        "a",
        "ul",
        "ol",
        "li",
        "table",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "caption",
        "pre",
        "code",
    ),
    *(
        "blockquote",
        "h1",
        "h3",
        "hr",
        "br",
        "section",
        "custom-tag",
        "font",
        "dl",
        "dt",
        "dd",
        "details",
        "summary",
        "sup",
        "u",
    ),
    *(
        "figure",
        "figcaption",
        "label",
        "math",
        "mrow",
        "form",
        "fieldset",
        "center",
        "img",
        "input",
        "wbr",
        "ruby",
        "rt",
    ),
)
CLASSES = (
    "",
    "",
    "",
    ' class="hljs language-x"',
    ' class="markdown prose"',
    ' class="katex"',
    ' class="whitespace-pre!"',
)
NAMES = st.sampled_from(TAGS)


def trees() -> st.SearchStrategy[str]:
    """Elements in any order, each within each other; `§` stands for a word."""
    text = st.sampled_from((" § ", "§", "§ §", "* §", "\n", "1. §", "§_§", "`§", "&lt;§&gt;", "§ | §"))

    def element(tag: str, names: str, inside: list[str]) -> str:
        return f"<{tag}{names}>{''.join(inside)}</{tag}>"

    return st.recursive(
        text,
        lambda inner: st.builds(element, NAMES, st.sampled_from(CLASSES), st.lists(inner, max_size=4)),
        max_leaves=25,
    )


@settings(QUICK, max_examples=150)
@given(st.lists(trees(), max_size=4).map("".join))
def test_any_tree_is_read_and_keeps_every_word(html: str) -> None:
    numbers = iter(range(10_000))
    html = re.sub("§", lambda _: f"word{next(numbers)}x", html)
    read = to_markdown(html)
    assert sorted(re.findall(r"word\d+x", read)) == sorted(re.findall(r"word\d+x", html))


@QUICK
@given(st.text(max_size=200), st.sampled_from(("p", "li", "td", "h2", "div", "strong", "blockquote")))
def test_literal_text_reads_as_itself(text: str, tag: str) -> None:
    """The text of the page that Markdown gives is the text that the page had, space aside."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", text)
    inside = f"<tr><td>{escape(text)}</td></tr>" if tag == "td" else f"<{tag}>{escape(text)}</{tag}>"
    read = to_markdown({"li": f"<ul>{inside}</ul>", "td": f"<table>{inside}</table>"}.get(tag, inside))
    drawn = re.sub(r"<[^>]*>", "", Page().draw(read))
    assert "".join(drawn.split()) == "".join(escape(text).split())


@pytest.mark.parametrize(
    "unit",
    [
        "*a ",
        "_a ",
        "~~a ",
        "`a ",
        "``a`",
        "[",
        "](",
        "<a ",
        "<!--",
        "&#x;",
        "\\",
        "a  ",
        "<b>",
        "<div>",
        "a\n",
        "|",
        "-\n",
    ],
)
def test_time_grows_with_the_text_alone(unit: str) -> None:
    def seconds(count: int) -> float:
        text = escape(unit * count)
        started = time.process_time()
        to_markdown(
            f"<p>{text}</p><table><tr><td>{text}</td></tr></table><p><img src=x alt='{text}'></p><h2>{text}</h2>"
        )
        return time.process_time() - started

    seconds(100)
    assert seconds(20_000) < max(0.5, 12 * seconds(4_000))


def test_deep_nesting_of_any_kind_is_an_error_or_read() -> None:
    for opening in (
        "<div>",
        "<span>",
        "<b>",
        "<ul><li>",
        "<blockquote>",
        "<a href=x><i>",
        "<table><tr><td>",
        "<pre>",
        "<x>",
    ):
        with suppress(HtmlError):
            to_markdown(opening * 10_000 + "end")
