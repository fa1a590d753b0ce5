"""The tree of a page's elements."""

import pytest

from vicuna.data.html.dom import Element, one_line, parse
from vicuna.data.html.walker import HtmlError, to_markdown


def test_senseless_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(HtmlError, match="nested more than"):
        to_markdown("<div>" * 3000)


def test_the_tree_has_what_a_reader_sees() -> None:
    body = parse("<div class='a b'><!-- no --><svg><path>no</path></svg><P>one<br>two<button>no</button></P></div>")
    (box,) = body.children
    assert isinstance(box, Element)
    assert (box.tag, box.classes, box.get("class"), box.get("id")) == ("div", "a b", "a b", "")
    assert [element.tag for element in body.descendants()] == ["div", "p", "br", "button"]
    assert box.text() == "one\ntwo"


def test_elements_know_what_is_inside_at_any_depth() -> None:
    body = parse("<span><b><code>x<i>y</i></code></b></span><span><b><p>z</p></b></span>")
    first, second = body.find_all("span")
    assert (first.num_code, first.has_block) == (1, False)
    assert (second.num_code, second.has_block) == (0, True)
    code = body.find("code")
    assert code is not None and code.children == ["xy"]  # without the elements of syntax highlighting
    assert body.find("table") is None


@pytest.mark.parametrize(("text", "line"), [("a", "a"), ("a \n b", "a b"), ("a\n  b  \nc", "a b c")])
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
