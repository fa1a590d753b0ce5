"""An answer as the chat page drew it, turned back into the Markdown that the model wrote.

Our own walk over lexbor's tree, because no general converter knows these pages: code boxes of several years with a
header bar and a copy button, code without `pre`, formulas that KaTeX drew in three ways at once, page markers and
character counters. Code comes out byte for byte, a formula from the TeX that the page carries along.

`filters` calls `to_markdown` on answers for which `looks_like_html` is true; `markdown` writes the pieces.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from vicuna.data import markdown

SKIPPED = frozenset({"svg", "button", "script", "style", "noscript", "template", "head", "-comment", "select", "audio"})
BLOCKS = frozenset(
    re.findall(
        r"\S+",
        "address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form"
        " h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section summary table tbody td tfoot th thead tr ul",
    )
)
STRONG, EMPHASIS, STRIKE = frozenset({"strong", "b"}), frozenset({"em", "i"}), frozenset({"del", "s", "strike"})
MAX_DEPTH = 120  # real answers stay below 40; deeper ones are broken or hostile

# Classes with which pages mark a block of code, of every year seen.
CODE_CLASS = re.compile(r"(?:^|\s)(?:hljs|language-\S+|!?whitespace-pre\S*)(?:\s|$)")
LANGUAGE_CLASS = re.compile(r"(?:^|\s)lang(?:uage)?-(\S+)")
# Words of a code box that are not its language.
BOX_WORDS = re.compile(r"copy code|copied!?|copy|edit|wrap|run|collapse|download|always show details", re.IGNORECASE)
LABEL = re.compile(r"[\w+#.\- /]{0,30}")
NO_LANGUAGE = frozenset({"", "text", "code", "plain text"})
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


@dataclass(frozen=True)
class Block:
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
    body = LexborHTMLParser(html).body
    if body is None:
        return ""
    blocks = _without_page_noise(list(_blocks(body, 0)))
    return "\n\n".join(block.text for block in blocks)


def _without_page_noise(blocks: list[Block]) -> list[Block]:
    """Page markers and counters stand outside of paragraphs; an answer `1 / 3` stands in one."""
    kept = [
        block
        for block in blocks
        if block.tag or not (PAGE_MARKER.fullmatch(block.text) or CHARACTER_COUNT.fullmatch(block.text))
    ]
    return kept or blocks


def _children(node: LexborNode) -> Iterator[LexborNode]:
    return node.iter(include_text=True)


def _tag(node: LexborNode) -> str:
    return node.tag or ""


def _classes(node: LexborNode) -> str:
    return node.attributes.get("class") or ""


# Blocks


def _blocks(parent: LexborNode, depth: int) -> Iterator[Block]:
    """The blocks inside an element, in order; runs of inline content become paragraphs."""
    if depth > MAX_DEPTH:
        raise HtmlError(f"elements are nested more than {MAX_DEPTH} deep")
    inline: list[LexborNode] = []
    previous = ""
    for node in _children(parent):
        if _is_inline(node):
            inline.append(node)
            continue
        if inline:
            yield from _paragraph(inline, "", depth)
            inline = []
        for block in _block(node, depth, previous):
            yield block
            previous = block.tag
    if inline:
        yield from _paragraph(inline, "", depth)


def _is_inline(node: LexborNode) -> bool:
    tag = _tag(node)
    if tag in BLOCKS:
        return False
    if tag == "code":
        return not CODE_CLASS.search(_classes(node))
    if "katex-display" in _classes(node) or "math-display" in _classes(node):
        return False
    # A span around blocks is a box like any other.
    return not (tag in ("span", "a", "font") and _holds_block(node))


def _holds_block(node: LexborNode) -> bool:
    # A selector matches the element itself too.
    found = node.css("p, div, pre, ul, ol, table, blockquote, h1, h2, h3, h4, h5, h6")
    return any(inner.mem_id != node.mem_id for inner in found)


def _block(node: LexborNode, depth: int, previous: str) -> Iterator[Block]:
    """The Markdown of one block element. `previous` is the tag of the block before it."""
    tag = _tag(node)
    if tag in SKIPPED:
        return
    if "katex-display" in _classes(node) or "math-display" in _classes(node):
        yield Block("math", _display_formula(node))
    elif tag == "code" or tag == "pre" or _is_code_box(node):
        yield Block("pre", _code_block(node))
    elif tag in ("ul", "ol"):
        text = _list(node, depth, follows_list=previous == tag)
        if text:
            yield Block(tag, text)
    elif tag == "table":
        yield from _table(node, depth)
    elif tag == "blockquote":
        text = "\n\n".join(block.text for block in _blocks(node, depth + 1))
        if text:
            yield Block(tag, markdown.quote(text))
    elif tag == "hr":
        yield Block(tag, "---")
    elif tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6") and not _holds_block(node):
        yield from _paragraph(list(_children(node)), tag, depth)
    else:
        yield from _blocks(node, depth + 1)


def _paragraph(nodes: list[LexborNode], tag: str, depth: int) -> Iterator[Block]:
    """A paragraph or heading from inline nodes; nothing if they hold no text."""
    text = _lines("".join(_inline(nodes, depth)))
    if not text:
        return
    if tag.startswith("h"):
        text = "#" * int(tag[1]) + " " + re.sub(r"(?:  )?\n", " ", text)
    yield Block(tag, text)


def _lines(text: str) -> str:
    """Inline Markdown as lines: no indentation, no line that begins a block by accident, hard breaks kept."""
    kept: list[str] = []
    for raw in re.sub(r"^[ \t\n]+|[ \t\n]+$", "", text).split("\n"):
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


def _list(node: LexborNode, depth: int, *, follows_list: bool) -> str:
    """A list; loose (with empty lines) if an item has paragraphs. A list right after a list takes the other mark."""
    is_ordered = _tag(node) == "ol"
    number = _start(node)
    items: list[str] = []
    is_loose = any(_tag(part) == "p" for item in _children(node) if _tag(item) == "li" for part in _children(item))
    for item in _children(node):
        tag = _tag(item)
        if tag in ("ul", "ol") and items:  # a list among the items: pages nest it without an item of its own
            nested = _list(item, depth + 1, follows_list=False)
            width = len(items[-1]) - len(items[-1].lstrip(" ")) + (3 if is_ordered else 2)
            items[-1] += "\n" + markdown.indent(nested, " " * width, " " * width)
            continue
        if tag in SKIPPED or tag == "-text":
            continue
        mark = f"{number}{')' if follows_list else '.'} " if is_ordered else ("* " if follows_list else "- ")
        number += 1
        text = _item(item, depth + 1, is_loose)
        items.append(markdown.indent(text, mark, " " * len(mark)) if text else mark.rstrip())
    return ("\n\n" if is_loose else "\n").join(items)


def _start(node: LexborNode) -> int:
    start = node.attributes.get("start") or "1"
    return int(start) if re.fullmatch(r"\d{1,9}", start) else 1


def _item(item: LexborNode, depth: int, is_loose: bool) -> str:
    box = item.css_first('input[type="checkbox"]')
    check = "" if box is None else ("[x] " if "checked" in box.attributes else "[ ] ")
    blocks = list(_blocks(item, depth))
    text = ""
    for block, before in zip(blocks, [None, *blocks], strict=False):
        if before is not None:
            # Two paragraphs always need the empty line; text and a list or code below it only in a loose list.
            is_tight = not is_loose and (block.tag in ("ul", "ol", "pre") or before.tag in ("ul", "ol", "pre"))
            text += "\n" if is_tight and not (before.tag in ("ul", "ol") and block.tag in ("", "p")) else "\n\n"
        text += block.text
    return check + text


def _table(node: LexborNode, depth: int) -> Iterator[Block]:
    rows: list[list[str]] = []
    alignments: list[str] = []
    for row in node.css("tr"):
        cells = [cell for cell in _children(row) if _tag(cell) in ("td", "th")]
        if not rows and cells and not any(_tag(cell) == "th" for cell in cells):
            rows.append([""] * len(cells))  # Markdown wants a head
        if not alignments:
            alignments = [_alignment(cell) for cell in cells]
        rows.append([_cell(cell, depth) for cell in cells])
    if rows:
        yield Block("table", markdown.table(rows, alignments))


def _alignment(cell: LexborNode) -> str:
    style = re.search(r"text-align:\s*(left|right|center)", cell.attributes.get("style") or "")
    return style[1] if style else cell.attributes.get("align") or ""


def _cell(cell: LexborNode, depth: int) -> str:
    """A cell's content in one line: `|` escaped, in code too (GFM 0.29, section 4.10), line breaks as `<br>`."""
    if all(map(_is_inline, _children(cell))):  # nothing begins a block here, so nothing is escaped against it
        text = re.sub(r"[ \t]*\n[ \t]*", " ", "".join(_inline(list(_children(cell)), depth)).replace("  \n", "<br>"))
    else:
        text = re.sub(r" *\n+", "<br>", "\n".join(block.text for block in _blocks(cell, depth)))
    return re.sub(r"(?<!\\)\|", r"\\|", text.strip())


# Code and formulas


def _is_code_box(node: LexborNode) -> bool:
    """Whether an element holds one block of code and, beside it, nothing but a header bar."""
    if _tag(node) not in ("div", "span", "figure"):
        return False
    codes = node.css("code")
    if len(codes) != 1 or not CODE_CLASS.search(_classes(codes[0])) or node.css_first("p, ul, ol, table, blockquote"):
        return False
    return LABEL.fullmatch(_header(node)[0]) is not None


def _code_block(node: LexborNode) -> str:
    code = node if _tag(node) == "code" else node.css_first("code")
    if code is None:
        return markdown.code_fence(_raw_text(node), "")
    return markdown.code_fence(_raw_text(code), _language(node, code))


def _language(box: LexborNode, code: LexborNode) -> str:
    """The language in the header bar; without a header, that of the class.

    A bar with an empty label means that the author gave none: the class then holds the highlighter's guess.
    """
    match = LANGUAGE_CLASS.search(_classes(code))
    from_class = match[1] if match else ""
    label, has_label = ("", False) if box is code else _header(box)
    if not has_label:
        return from_class
    label = label.lower() if label.lower() == from_class.lower() else label
    if label.lower() in NO_LANGUAGE:
        return from_class if label and label.lower() == from_class else ""
    return from_class if from_class.lower() == label.lower() else label.replace(" ", "-")


def _header(box: LexborNode) -> tuple[str, bool]:
    """The text of a code box outside of its code and buttons, and whether there is a place for a label at all."""
    texts: list[str] = []
    has_label = False

    def visit(node: LexborNode, depth: int) -> None:
        nonlocal has_label
        for child in _children(node):
            tag = _tag(child)
            if tag == "-text":
                texts.append(child.text_content or "")
                has_label = has_label or bool(BOX_WORDS.sub("", texts[-1]).strip())
            elif tag == "span" and child.first_child is None:
                has_label = True
            elif tag != "code" and tag not in SKIPPED and depth < MAX_DEPTH:
                visit(child, depth + 1)

    visit(box, 0)
    return BOX_WORDS.sub("", " ".join(texts)).strip(), has_label


def _raw_text(node: LexborNode) -> str:
    """All text inside, byte for byte; `<br>` is a line break."""
    if node.css_first("br") is None:
        return node.text(deep=True)
    return "".join(
        "\n" if _tag(part) == "br" else part.text_content or ""
        for part in node.traverse(include_text=True)
        if _tag(part) in ("br", "-text")
    )


def _tex(node: LexborNode) -> str | None:
    annotation = node.css_first('annotation[encoding="application/x-tex"]')
    return None if annotation is None else annotation.text(deep=True).strip()


def _display_formula(node: LexborNode) -> str:
    formulas = node.css(".katex") or [node]
    texts = [_tex(formula) or _plain_formula(formula) for formula in formulas]
    return "\n".join(f"\\[\n{tex}\n\\]" if "\n" in tex else f"\\[ {tex} \\]" for tex in texts)


def _plain_formula(node: LexborNode) -> str:
    """The best that is left of a formula without its TeX: one of its drawings, not all three."""
    drawing = node.css_first(".katex-mathml, math") or node
    return drawing.text(deep=True).strip()


# Inline content


def _inline(nodes: list[LexborNode], depth: int) -> Iterator[str]:
    """Markdown of inline nodes, piece by piece."""
    if depth > MAX_DEPTH:
        raise HtmlError(f"elements are nested more than {MAX_DEPTH} deep")
    index = 0
    while index < len(nodes):
        node, tag = nodes[index], _tag(nodes[index])
        index += 1
        mark = _mark(tag)
        if tag == "-text":
            yield markdown.escape_text(node.text_content or "")
        elif tag == "br":
            following = nodes[index].text_content if index < len(nodes) and _tag(nodes[index]) == "-text" else None
            yield "  " if following and following.startswith("\n") else "  \n"
        elif tag in SKIPPED or tag == "input":
            continue
        elif "katex" in _classes(node).split() or "math-inline" in _classes(node).split():
            yield f"\\( {_tex(node) or _plain_formula(node)} \\)"
        elif "katex-display" in _classes(node) or "math-display" in _classes(node):
            yield f"\n{_display_formula(node)}\n"
        elif tag == "code":
            yield markdown.code_span(_raw_text(node))
        elif tag == "img":
            yield _image(node)
        elif mark:
            content = "".join(_inline(list(_children(node)), depth + 1))
            while index < len(nodes) and _mark(_tag(nodes[index])) == mark:  # <b>a</b><b>b</b> is one emphasis
                content += "".join(_inline(list(_children(nodes[index])), depth + 1))
                index += 1
            yield markdown.emphasis(content, mark)
        else:
            content = "".join(_inline(list(_children(node)), depth + 1))
            if tag == "a":
                href, is_marked = node.attributes.get("href") or "", "target" in node.attributes
                content = markdown.link(content, href, node.attributes.get("title"), links_itself=is_marked)
            elif tag in ("sup", "sub") and content.strip():
                content = f"<{tag}>{content}</{tag}>"
            elif tag in BLOCKS:
                content = f"\n{content}\n"
            yield content


def _mark(tag: str) -> str:
    return "**" if tag in STRONG else "*" if tag in EMPHASIS else "~~" if tag in STRIKE else ""


def _image(node: LexborNode) -> str:
    source, alt = node.attributes.get("src") or "", node.attributes.get("alt") or ""
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
    body = LexborHTMLParser(html).body
    pre = None if body is None else body.css_first('[class*="whitespace-pre-wrap"]')
    return to_markdown(html) if pre is None or pre.css_first("p, pre, ul, ol, table") else _raw_text(pre)
