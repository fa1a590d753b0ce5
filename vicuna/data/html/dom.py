"""A page's elements as plain Python objects, for `walker` and `inline`.

lexbor parses the page, broken ones as browsers do. `walker` needs the tag and classes of each element many times, which
lexbor's own objects create each time; here they are read once, and elements without text of the answer (drawings, the
rendered formula beside its TeX) are left out. That halves the time of a page.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

from selectolax.lexbor import LexborHTMLParser, LexborNode

Node: TypeAlias = "Element | str"

PROSE_TAGS = frozenset(
    re.findall(r"\S+", "p div pre ul ol li dl table blockquote h1 h2 h3 h4 h5 h6 section article details figure")
)
TEXTLESS_TAGS = frozenset(
    re.findall(r"\S+", "svg script style noscript template head select audio video iframe object datalist")
)
SKIPPED_TAGS = TEXTLESS_TAGS | {"button"}
BLOCK_TAGS = frozenset(
    re.findall(
        r"\S+",
        "address article aside blockquote body caption center dd details dir div dl dt fieldset figcaption figure"
        " footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol p pre search section summary"
        " table tbody td tfoot th thead tr ul",
    )
)
BREAK = re.compile("</?br")
MAX_DEPTH = 120  # real answers stay below 40; deeper ones are broken or hostile


class HtmlError(ValueError):
    """A page whose elements are nested deeper than `MAX_DEPTH`."""


class Element:
    """An element: its tag in lower case, its attributes and its children, text as `str`.

    Attributes:
        classes: the attribute `class`, "" if there is none.
        has_block: whether one of `PROSE_TAGS` is inside, at any depth.
        num_code: how many `code` elements are inside, at any depth.
    """

    __slots__ = ("attributes", "children", "classes", "has_block", "num_code", "tag")

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.classes = (attributes.get("class") or "") if attributes else ""
        self.children: list[Node] = []
        self.has_block = False
        self.num_code = 0

    def get(self, name: str) -> str:
        """An attribute's value; "" if there is none."""
        return self.attributes.get(name) or ""

    def descendants(self) -> Iterator["Element"]:
        """All elements inside, in the order of the page."""
        rest = self.children[::-1]
        while rest:
            node = rest.pop()
            if isinstance(node, Element):
                yield node
                rest += node.children[::-1]

    def find_all(self, *tags: str) -> list["Element"]:
        """The elements of these tags inside, in the order of the page."""
        return [element for element in self.descendants() if element.tag in tags]

    def find(self, *tags: str) -> "Element | None":
        """The first element of these tags inside."""
        rest = self.children[::-1]
        while rest:
            node = rest.pop()
            if isinstance(node, Element):
                if node.tag in tags:
                    return node
                rest += node.children[::-1]
        return None

    def text(self) -> str:
        """All text inside, byte for byte; `<br>` is a line break."""
        texts: list[str] = []
        rest = self.children[::-1]
        while rest:
            node = rest.pop()
            if isinstance(node, str):
                texts.append(node)
            elif node.tag == "br":
                texts.append("\n")
            elif node.tag != "button":
                rest += node.children[::-1]
        return "".join(texts)


def check_depth(depth: int) -> None:
    """Raise HtmlError at a depth above `MAX_DEPTH`."""
    if depth > MAX_DEPTH:
        raise HtmlError(f"elements are nested more than {MAX_DEPTH} deep")


def one_line(text: str) -> str:
    """Text with its line breaks as spaces."""
    if "\n" not in text:
        return text
    first, *others = text.split("\n")
    *middle, last = [line.lstrip() for line in others]
    return " ".join([first.rstrip(), *map(str.rstrip, middle), last])


def parse(html: str) -> Element:
    """The body of a page, or of a part of one, without comments and elements that have no text."""
    body = Element("body", {})
    root = LexborHTMLParser(html).body
    rest: list[tuple[LexborNode, Element]] = [] if root is None else [(root, body)]
    links: list[tuple[Element, Element]] = []  # parent and child; a child's own links come after this one
    has_breaks: bool | None = None  # whether a line break may be somewhere; asked only where there is code
    while rest:
        source, element = rest.pop()
        children = element.children
        for child in source.iter(include_text=True):
            tag = child.tag or "-"
            if tag == "-text":
                children.append(child.text_content or "")
                continue
            if tag in TEXTLESS_TAGS or tag[0] == "-":
                continue
            made = Element(tag, child.attributes)
            if tag == "code":
                if has_breaks is None:
                    has_breaks = BREAK.search(html.lower()) is not None
                if has_breaks and child.css_first("br") is not None:
                    rest.append((child, made))
                else:  # without the spans of syntax highlighting
                    made.children.append(child.text(deep=True))
            elif made.classes != "katex-html" or not children:
                rest.append((child, made))
            children.append(made)
            links.append((element, made))
    for element, inside in reversed(links):
        tag = inside.tag
        if tag == "code":
            element.num_code += inside.num_code + 1
        elif inside.num_code:
            element.num_code += inside.num_code
        if inside.has_block or tag in PROSE_TAGS:
            element.has_block = True
    return body
