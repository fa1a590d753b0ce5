"""An answer as the chat page drew it, turned back into the Markdown that the model wrote.

Our own walk over the page's tree (`dom`), because no general converter knows these pages: code boxes of several years
with a header bar and a copy button (`code_box`), formulas that KaTeX drew in three ways at once, page markers and
character counters. Code comes out byte for byte, a formula from the TeX that the page carries along.

`filters` calls `to_markdown` on answers for which `looks_like_html` is true; `markdown` writes the pieces.
"""

import re
from typing import NamedTuple

from vicuna.data import markdown
from vicuna.data.code_box import CODE_CLASS, code_block, is_code
from vicuna.data.dom import WITHOUT_WORDS, Element, Node, parse

SKIPPED = WITHOUT_WORDS | {"button"}
BLOCKS = frozenset(
    re.findall(
        r"\S+",
        "address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form"
        " h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section summary table tbody td tfoot th thead tr ul",
    )
)
MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~", "s": "~~", "strike": "~~"}
LISTS = ("ul", "ol")
MAX_DEPTH = 120  # real answers stay below 40; deeper ones are broken or hostile

PAGE_MARKER = re.compile(r"\d+ / \d+")
CHARACTER_COUNT = re.compile(r"(?:Copy)?\s*\d[\d,.]* chars / \d[\d,.]* words")

# An answer is HTML if it carries the page's own marks, or begins with a tag of prose and ends with one.
PAGE_MARK = re.compile(r"""<div class="[^"]*\b(?:markdown|prose)\b|<span class="katex|<pre><div class="bg-black""")
PROSE_START = re.compile(r"<(?:p|div|ol|ul|pre|table|h[1-6]|blockquote|span|strong|em)(?:\s[^<>]*)?>")
PROSE_END = re.compile(r"</(?:p|div|ol|ul|pre|table|h[1-6]|blockquote|span|strong|em)>$")
HUMAN_PAGE = re.compile(r"""\s*<div class="[^"]*\b(?:markdown prose|whitespace-pre-wrap)\b""")
FENCE_LINE = re.compile(r"^(?:```|~~~)", re.MULTILINE)


class HtmlError(ValueError):
    """A page that cannot be read: nested beyond any sense."""


class Block(NamedTuple):
    """A piece of Markdown that stands alone. `tag` is the element it came from; "" for text outside of any."""

    tag: str
    text: str


def looks_like_html(text: str) -> bool:
    """Whether an answer is a page's HTML rather than text or Markdown that may speak of HTML."""
    if PAGE_MARK.search(text):
        return FENCE_LINE.search(text) is None or text.lstrip().startswith("<")
    stripped = text.strip()
    return bool(PROSE_START.match(stripped) and PROSE_END.search(stripped))


def to_markdown(html: str) -> str:
    """The Markdown of a page's answer.

    Raises:
        HtmlError: elements are nested more than `MAX_DEPTH` deep.
    """
    return "\n\n".join(block.text for block in _without_page_noise(_blocks(parse(html), 0)))


def _without_page_noise(blocks: list[Block]) -> list[Block]:
    """Page markers and counters stand outside of paragraphs; an answer `1 / 3` stands in one."""
    kept = [
        block
        for block in blocks
        if block.tag or not (PAGE_MARKER.fullmatch(block.text) or CHARACTER_COUNT.fullmatch(block.text))
    ]
    return kept or blocks


# Blocks


def _blocks(parent: Element, depth: int) -> list[Block]:
    """The blocks inside an element, in order; runs of inline content become paragraphs."""
    if depth > MAX_DEPTH:
        raise HtmlError(f"elements are nested more than {MAX_DEPTH} deep")
    blocks: list[Block] = []
    inline: list[Node] = []
    for node in parent.children:
        if isinstance(node, str) or _is_inline(node):
            inline.append(node)
            continue
        if inline:
            blocks += _paragraph(inline, "", depth)
            inline = []
        blocks += _block(node, depth, blocks[-1].tag if blocks else "")
    if inline:
        blocks += _paragraph(inline, "", depth)
    return blocks


def _is_inline(element: Element) -> bool:
    tag, classes = element.tag, element.classes
    if tag in BLOCKS:
        return False
    if tag == "code":
        return not CODE_CLASS.search(classes)
    if classes and _is_display_formula(classes):
        return False
    # A span around blocks is a box like any other.
    return not (element.holds_block and tag in ("span", "a", "font"))


def _is_display_formula(classes: str) -> bool:
    return "katex-display" in classes or "math-display" in classes


def _block(element: Element, depth: int, previous: str) -> list[Block]:
    """The Markdown of one block element. `previous` is the tag of the block before it."""
    tag = element.tag
    if tag in SKIPPED:
        return []
    if tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6") and not element.holds_block:
        return _paragraph(element.children, tag, depth)
    if _is_display_formula(element.classes):
        return [Block("math", _display_formula(element))]
    if is_code(element):
        return [Block("pre", code_block(element))]
    if tag in LISTS:
        text = _list(element, depth, follows_list=previous == tag)
        return [Block(tag, text)] if text else []
    if tag == "table":
        return _table(element, depth)
    if tag == "blockquote":
        text = "\n\n".join(block.text for block in _blocks(element, depth + 1))
        return [Block(tag, markdown.quote(text))] if text else []
    if tag == "hr":
        return [Block(tag, "---")]
    return _blocks(element, depth + 1)


def _paragraph(nodes: list[Node], tag: str, depth: int) -> list[Block]:
    """A paragraph or heading from inline nodes; nothing if they hold no text."""
    text = _lines(_inline(nodes, depth))
    if not text:
        return []
    if tag.startswith("h"):
        text = "#" * int(tag[1]) + " " + re.sub(r"(?:  )?\n", " ", text)
    return [Block(tag, text)]


def _lines(text: str) -> str:
    """Inline Markdown as lines: no indentation, no line that begins a block by accident, hard breaks kept."""
    text = text.strip(" \t\n")
    if "\n" not in text:
        return markdown.escape_line_start(text)
    kept: list[str] = []
    for raw in text.split("\n"):
        line = raw.lstrip(" \t")
        if not line.endswith("  "):
            line = line.rstrip(" \t")
        if not kept:
            kept.append(markdown.escape_line_start(line))
        elif not line.strip():
            continue
        elif kept[-1].endswith("  "):
            kept.append(markdown.escape_line_start(line))
        elif markdown.begins_block(line):
            kept[-1] += " " + line
        else:
            kept.append(line)
    return "\n".join(kept).rstrip(" ")


def _list(element: Element, depth: int, *, follows_list: bool) -> str:
    """A list; loose (with empty lines) if an item has paragraphs. A list right after a list takes the other mark."""
    is_ordered = element.tag == "ol"
    number = _start(element)
    inside = [child for child in element.children if isinstance(child, Element)]
    is_loose = any(
        isinstance(part, Element) and part.tag == "p" for item in inside if item.tag == "li" for part in item.children
    )
    items: list[str] = []
    for item in inside:
        if item.tag in LISTS and items:  # a list among the items: pages nest it without an item of its own
            nested = _list(item, depth + 1, follows_list=False)
            width = len(items[-1]) - len(items[-1].lstrip(" ")) + (3 if is_ordered else 2)
            items[-1] += "\n" + markdown.indent(nested, " " * width, " " * width)
            continue
        if item.tag in SKIPPED:
            continue
        mark = f"{number}{')' if follows_list else '.'} " if is_ordered else ("* " if follows_list else "- ")
        number += 1
        text = _item(item, depth + 1, is_loose)
        items.append(markdown.indent(text, mark, " " * len(mark)) if text else mark.rstrip())
    return ("\n\n" if is_loose else "\n").join(items)


def _start(element: Element) -> int:
    start = element.get("start") or "1"
    return int(start) if re.fullmatch(r"\d{1,9}", start) else 1


def _item(item: Element, depth: int, is_loose: bool) -> str:
    text, before = "", ""
    for place, block in enumerate(_blocks(item, depth)):
        if place:
            # Two paragraphs always need the empty line; text and a list or code below it only in a loose list.
            is_tight = not is_loose and (block.tag in ("ul", "ol", "pre") or before in ("ul", "ol", "pre"))
            text += "\n" if is_tight and not (before in LISTS and block.tag in ("", "p")) else "\n\n"
        text += block.text
        before = block.tag
    return _checkbox(item) + text


def _checkbox(item: Element) -> str:
    """The mark of a task, if the item or its paragraph begins with a box."""
    for part in item.children[:2]:
        if isinstance(part, Element) and part.tag == "input" and part.get("type") == "checkbox":
            return "[x] " if "checked" in part.attributes else "[ ] "
        if isinstance(part, Element) and part.tag in ("p", "label"):
            return _checkbox(part)
    return ""


def _table(element: Element, depth: int) -> list[Block]:
    rows: list[list[str]] = []
    alignments: list[str] = []
    for row in element.find_all("tr"):
        cells = [cell for cell in row.children if isinstance(cell, Element) and cell.tag in ("td", "th")]
        if not rows and cells and not any(cell.tag == "th" for cell in cells):
            rows.append([""] * len(cells))  # Markdown wants a head
        if not alignments:
            alignments = [_alignment(cell) for cell in cells]
        rows.append([_cell(cell, depth) for cell in cells])
    return [Block("table", markdown.table(rows, alignments))] if rows else []


def _alignment(cell: Element) -> str:
    style = re.search(r"text-align:\s*(left|right|center)", cell.get("style"))
    return style[1] if style else cell.get("align")


def _cell(cell: Element, depth: int) -> str:
    """A cell's content in one line: `|` escaped, in code too (GFM 0.29, section 4.10), line breaks as `<br>`."""
    if all(isinstance(node, str) or _is_inline(node) for node in cell.children):
        text = _inline(cell.children, depth)  # nothing begins a block here, so nothing is escaped against it
        if "\n" in text:
            text = re.sub(r"[ \t]*\n[ \t]*", " ", text.replace("  \n", "<br>"))
    else:
        text = re.sub(r" *\n+", "<br>", "\n".join(block.text for block in _blocks(cell, depth)))
    return re.sub(r"(?<!\\)\|", r"\\|", text.strip()) if "|" in text else text.strip()


# Formulas


def _tex(element: Element) -> str | None:
    for annotation in element.find_all("annotation"):
        if annotation.get("encoding") == "application/x-tex":
            return annotation.text().strip()
    return None


def _display_formula(element: Element) -> str:
    formulas = [part for part in element.descendants() if "katex" in part.classes.split()] or [element]
    texts = [_tex(formula) or _plain_formula(formula) for formula in formulas]
    return "\n".join(f"\\[\n{tex}\n\\]" if "\n" in tex else f"\\[ {tex} \\]" for tex in texts)


def _plain_formula(element: Element) -> str:
    """The best that is left of a formula without its TeX: one of its drawings, not all three."""
    drawings = (part for part in element.descendants() if part.tag == "math" or "katex-mathml" in part.classes.split())
    return next(drawings, element).text().strip()


# Inline content


def _inline(nodes: list[Node], depth: int) -> str:
    """Markdown of inline nodes."""
    if depth > MAX_DEPTH:
        raise HtmlError(f"elements are nested more than {MAX_DEPTH} deep")
    if len(nodes) == 1 and isinstance(nodes[0], str):
        return markdown.escape_text(nodes[0])
    pieces: list[str] = []
    index = 0
    while index < len(nodes):
        node = nodes[index]
        index += 1
        if isinstance(node, str):
            pieces.append(markdown.escape_text(node))
            continue
        tag = node.tag
        if mark := MARKS.get(tag):
            content = _inline(node.children, depth + 1)
            while index < len(nodes):  # <b>a</b><b>b</b> is one emphasis
                following = nodes[index]
                if isinstance(following, str) or MARKS.get(following.tag) != mark:
                    break
                content += _inline(following.children, depth + 1)
                index += 1
            pieces.append(markdown.emphasis(content, mark))
        elif tag == "br":
            # The page breaks the line after `<br>`, or goes on in the same.
            is_broken = index < len(nodes) and str(nodes[index]).startswith("\n")
            pieces.append("  " if is_broken else "  \n")
        elif tag == "code":
            pieces.append(markdown.code_span(node.text()))
        elif tag not in SKIPPED and tag != "input":
            pieces.append(_inline_element(node, depth))
    return "".join(pieces)


def _inline_element(node: Element, depth: int) -> str:
    """Markdown of an inline element that is no mark, break or code."""
    tag = node.tag
    if node.classes:
        classes = node.classes.split()
        if "katex" in classes or "math-inline" in classes:
            return f"\\( {_tex(node) or _plain_formula(node)} \\)"
        if _is_display_formula(node.classes):
            return f"\n{_display_formula(node)}\n"
    if tag == "img":
        return _image(node)
    content = _inline(node.children, depth + 1)
    if tag == "a":
        is_marked = "target" in node.attributes
        return markdown.link(content, node.get("href"), node.attributes.get("title"), links_itself=is_marked)
    if tag in ("sup", "sub") and content.strip():
        return f"<{tag}>{content}</{tag}>"
    return f"\n{content}\n" if tag in BLOCKS else content


def _image(node: Element) -> str:
    source, alt = node.get("src"), node.get("alt")
    return f"![{alt}]({source})" if source and not source.startswith("data:") else alt


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
    return to_markdown(html) if shown is None or shown.find("p", "pre", *LISTS, "table") else shown.text()
