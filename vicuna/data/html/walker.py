"""An answer's HTML, as a chat page shows it, to the Markdown that the model wrote.

This is our own walk over the page's tree (`dom`), because no general converter handles these pages: code boxes of
several years with a header bar and a copy button (`code_box`), formulas that KaTeX renders three times (`formulas`),
page markers and character counters. Code comes out byte for byte, a formula as the TeX that the page has beside it.

This module walks the blocks: `inline` converts what is inside of them, `markdown` writes the syntax, and `escape`
escapes literal text. The step `html` calls `to_markdown` on answers for which `looks_like_html` is true.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vicuna.data.html import code_box, markdown
from vicuna.data.html.dom import BLOCK_TAGS, SKIPPED_TAGS, Element, HtmlError, Node, check_depth, parse
from vicuna.data.html.escape import escape_cell, escape_heading, escape_paragraph
from vicuna.data.html.formulas import display_formula, is_display_formula, restore_formula_marks
from vicuna.data.html.inline import inline

__all__ = ["HtmlError", "is_page", "looks_like_html", "page_text", "to_markdown"]

HEADING_TAGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
LIST_TAGS = frozenset({"ul", "ol"})
RULE = re.compile(r"([-*])(?: \1)+ \1?$", re.MULTILINE)
# A quotation or list that does not end with a paragraph, which would continue on the next line.
CLOSED_BLOCK = re.compile(r"(?:[\s\S]*\n)?[> ]*(?:[-*] |\d+[.)] )*(?:(?:#|```|---|___|\||\\[\[\]]).*|[-*]|\d+[.)])")
PAGE_MARKER = re.compile(r"\d+ / \d+")
CHARACTER_COUNT = re.compile(r"(?:Copy)?\s*\d[\d,.]* chars / \d[\d,.]* words")

# An answer is HTML if it carries the page's own marks, or begins with a tag of prose and ends with one.
PAGE_MARK = re.compile(r"""<div class="[^"]*\b(?:markdown|prose)\b|<span class="katex|<pre><div class="bg-black""")
PROSE_START = re.compile(r"<(?:p|div|ol|ul|pre|table|h[1-6]|blockquote|span|strong|em)(?:\s[^<>]*)?>")
PROSE_END = re.compile(r"</(?:p|div|ol|ul|pre|table|h[1-6]|blockquote|span|strong|em)>$")
HUMAN_PAGE = re.compile(r"""\s*<div class="[^"]*\b(?:markdown prose|whitespace-pre-wrap)\b""")
FENCE_LINE = re.compile(r"^(?:```|~~~)", re.MULTILINE)


class Block(NamedTuple):
    """One block of Markdown. `tag` is the element that it was made from; "" for text outside of any."""

    tag: str
    text: str


def looks_like_html(text: str) -> bool:
    """Whether an answer is a page's HTML, and not text or Markdown that mentions HTML."""
    if PAGE_MARK.search(text):
        has_fence = ("```" in text or "~~~" in text) and FENCE_LINE.search(text)
        return not has_fence or text.lstrip().startswith("<")
    stripped = text.strip()
    return bool(PROSE_START.match(stripped) and PROSE_END.search(stripped))


def to_markdown(html: str) -> str:
    """The Markdown of a page's answer.

    Raises:
        HtmlError: elements are nested too deep.
    """
    return "\n\n".join([block.text for block in _without_page_noise(_blocks(parse(html), 0))])


def _without_page_noise(blocks: list[Block]) -> list[Block]:
    """Without page markers and counters. These stand outside of paragraphs; an answer that is `1 / 3` in one."""
    kept = [
        block
        for block in blocks
        if block.tag or not (PAGE_MARKER.fullmatch(block.text) or CHARACTER_COUNT.fullmatch(block.text))
    ]
    return kept or blocks


# Blocks


def _blocks(parent: Element, depth: int) -> list[Block]:
    """The blocks inside an element, in order; runs of inline content become paragraphs."""
    check_depth(depth)
    blocks: list[Block] = []
    line: list[Node] = []
    for node in parent.children:
        if isinstance(node, str) or _is_inline(node):
            line.append(node)
            continue
        if line:
            blocks += _paragraph(line, "", depth)
            line = []
        blocks += _block(node, depth, blocks[-1] if blocks else None)
    if line:
        blocks += _paragraph(line, "", depth)
    return blocks


def _is_inline(element: Element) -> bool:
    tag = element.tag
    if tag in SKIPPED_TAGS:
        return True
    if tag in BLOCK_TAGS:
        return False
    if tag == "code":
        return not code_box.is_block(element)
    # A span around blocks is treated as a block.
    return not element.has_block and not (element.classes and is_display_formula(element.classes))


def _block(element: Element, depth: int, before: Block | None) -> list[Block]:
    """The Markdown of one block element. `before`: the block that stands before it."""
    tag = element.tag
    if tag == "p" and not element.has_block:
        return _paragraph(element.children, tag, depth)
    if tag in HEADING_TAGS and not (element.has_block and element.find("pre", "ul", "ol", "table", "blockquote")):
        text = escape_heading(inline(element.children, depth))
        return [Block(tag, "#" * int(tag[1]) + " " + text)] if text else []
    if element.classes and is_display_formula(element.classes):
        return [Block("math", display_formula(element))]
    if tag == "pre":
        return _pre(element, depth)
    if tag == "code" or code_box.is_box(element):
        code = element if tag == "code" else element.find_all("code")[0]
        return [Block("pre", code_box.fenced(element, code))]
    if tag in LIST_TAGS:
        text = _list(element, depth, before)
        return [Block(tag, text)] if text else []
    if tag == "table":
        return _table(element, depth)
    if tag == "blockquote":
        text = "\n\n".join(block.text for block in _blocks(element, depth + 1))
        return [Block(tag, markdown.quote(text))] if text else []
    if tag == "hr":
        return [Block(tag, "---")]
    return _blocks(element, depth + 1)


def _paragraph(nodes: Sequence[Node], tag: str, depth: int) -> list[Block]:
    """A paragraph of inline nodes; none if they have no text."""
    text = restore_formula_marks(escape_paragraph(inline(nodes, depth), may_be_html=tag == "p"))
    return [Block(tag, text)] if text and not text.isspace() else []


def _pre(element: Element, depth: int) -> list[Block]:
    """A `pre`: a code box, several of them, or preformatted text."""
    if element.num_code == 1 and (code := element.find("code")):
        head = code_box.header(element)
        is_label = code_box.is_label(head[0], code)
        if is_label or code_box.is_block(code):
            above = [] if is_label else [Block("", escape_paragraph(head[0]))]
            return [*above, Block("pre", code_box.fenced(element, code, head))]
    elif sum(map(code_box.is_block, element.find_all("code"))) > 1:
        return _blocks(element, depth + 1)
    return [Block("pre", code_box.fenced(element, element))]


# Lists


def _list(element: Element, depth: int, before: Block | None) -> str:
    """A list; loose (with empty lines) if an item has paragraphs. A list right after a list takes the other mark."""
    check_depth(depth)
    is_loose = any(
        isinstance(part, Element) and part.tag == "p"
        for item in element.children
        if isinstance(item, Element) and item.tag == "li"
        for part in item.children
    )
    mark, number = _mark(element, before), _start(element)
    items: list[str] = []
    for item in element.children:
        if isinstance(item, str):
            if item.isspace() or not item:
                continue
            text = "".join(block.text for block in _paragraph([item], "", depth))
        elif item.tag in LIST_TAGS and items:  # a list among the items: pages nest it without an item of its own
            width = len(items[-1]) - len(items[-1].lstrip(" ")) + (3 if mark in ".)" else 2)
            items[-1] += "\n" + markdown.indent(_list(item, depth + 1, None), " " * width, " " * width)
            continue
        elif item.tag in SKIPPED_TAGS:
            continue
        else:
            text = _item(item, depth + 1, is_loose)
        first = f"{number}{mark} " if mark in ".)" else f"{mark} "
        number += 1
        items.append(markdown.indent(text, first, " " * len(first)) if text else first.rstrip())
    if any(RULE.match(item) for item in items):  # `- - -`, from lists that begin with lists
        items = [("*" if mark == "-" else "-") + item[1:] for item in items]
    return ("\n\n" if is_loose else "\n").join(items)


def _mark(element: Element, before: Block | None) -> str:
    """`-` or `.`; the other one of its kind right after a list that has it."""
    usual, other = ".)" if element.tag == "ol" else "-*"
    is_taken = before and before.tag == element.tag and re.match(rf"\d*{re.escape(usual)}", before.text)
    return other if is_taken else usual


def _start(element: Element) -> int:
    start = element.get("start") or "1"
    return int(start) if re.fullmatch(r"[0-9]{1,9}", start) else 1


def _item(item: Element, depth: int, is_loose: bool) -> str:
    text = ""
    before: Block | None = None
    for block in _blocks(item, depth):
        written = "___" if block.tag == "hr" else block.text  # `---` below text would make a heading of it
        if before:
            text += "\n" if not is_loose and _may_follow(block, before) else "\n\n"
        text += written
        before = block
    return _checkbox(item) + text


def _may_follow(block: Block, before: Block) -> bool:
    """Whether a Markdown reader needs no empty line before a block of an item to read it as that block."""
    is_text, follows_text = block.tag in ("", "p"), before.tag in ("", "p")
    if follows_text and block.tag in LIST_TAGS:  # what cannot break into a paragraph (CommonMark 0.31, section 5.2)
        return re.match(r"(?:[-*]|1[.)]) ", block.text) is not None
    if is_text or block.tag == "math" or (block.tag == "table" and not follows_text):
        is_open = before.tag in ("table", "blockquote", *LIST_TAGS) and not CLOSED_BLOCK.fullmatch(before.text)
        return not (follows_text or is_open)
    return block.tag != before.tag or block.tag != "blockquote"


def _checkbox(item: Element) -> str:
    """The mark of a task, if the item or its paragraph begins with a box."""
    for part in item.children[:2]:
        if isinstance(part, Element) and part.tag == "input" and part.get("type") == "checkbox":
            return "[x] " if "checked" in part.attributes else "[ ] "
        if isinstance(part, Element) and part.tag in ("p", "label"):
            return _checkbox(part)
    return ""


# Tables


def _table(element: Element, depth: int) -> list[Block]:
    above: list[Block] = []
    rows: list[list[str]] = []
    alignments: list[str] = []
    for row in _rows(element):
        if row.tag == "caption":
            above += _blocks(row, depth + 1)
            continue
        cells = [cell for cell in row.children if isinstance(cell, Element) and cell.tag in ("td", "th")]
        if not rows and cells and not any(cell.tag == "th" for cell in cells):
            rows.append([""] * len(cells))  # Markdown tables need a header row
        if not alignments:
            alignments = [_alignment(cell) for cell in cells]
        rows.append([_cell(cell, depth) for cell in cells])
    return [*above, Block("table", markdown.table(rows, alignments))] if any(rows) else above


def _rows(table: Element) -> Iterator[Element]:
    """The rows of a table, and its caption, but not those of a table in a cell."""
    for part in table.children:
        if isinstance(part, Element) and part.tag in ("tr", "caption"):
            yield part
        elif isinstance(part, Element) and part.tag in ("thead", "tbody", "tfoot"):
            yield from (row for row in part.children if isinstance(row, Element) and row.tag == "tr")


def _alignment(cell: Element) -> str:
    style = re.search(r"text-align:\s*(left|right|center)", cell.get("style"))
    return style[1] if style else cell.get("align")


def _cell(cell: Element, depth: int) -> str:
    """A cell's content in one line."""
    if all(isinstance(node, str) or _is_inline(node) for node in cell.children):
        return escape_cell(inline(cell.children, depth))
    lines: list[str] = []
    for block in _blocks(cell, depth + 1):
        inside = block.text.split("\n")
        lines += map(markdown.code_span, inside[1:-1]) if block.tag == "pre" else inside
    return "<br>".join(line.strip() for line in lines if line.strip()).replace("|", "\\|")


# Human turns


def is_page(text: str) -> bool:
    """Whether a human turn is, from its first to its last character, the element in which the page shows one."""
    return HUMAN_PAGE.match(text) is not None and text.rstrip().endswith("</div>")


def page_text(html: str) -> str:
    """What a human wrote, out of the element in which the page shows it: plain text, or an answer's Markdown.

    Raises:
        HtmlError: as `to_markdown`.
    """
    body = parse(html)
    shown = next((part for part in body.descendants() if "whitespace-pre-wrap" in part.classes), None)
    return to_markdown(html) if shown is None or shown.find("p", "pre", *LIST_TAGS, "table") else shown.text()
