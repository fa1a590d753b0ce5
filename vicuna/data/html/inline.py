"""Inline content of a paragraph, heading or cell: text, emphasis, links, images, code and formulas.

In the result Markdown syntax is hidden and literal text is not (see `escape`); `walker` escapes it by the kind of block
around it.
"""

from collections.abc import Sequence

from vicuna.data.html import markdown
from vicuna.data.html.dom import BLOCK_TAGS, SKIPPED_TAGS, Element, Node, check_depth, one_line
from vicuna.data.html.escape import BREAK, escape_words, hide
from vicuna.data.html.formulas import display_formula, inline_formula, is_display_formula, is_formula

MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~", "s": "~~", "strike": "~~"}


def inline(nodes: Sequence[Node], depth: int, marks: str = "") -> str:
    """The Markdown of inline nodes, with its syntax hidden.

    Args:
        marks: those of the emphasis around; the same emphasis inside is left out.

    Raises:
        HtmlError: nested too deep.
    """
    if len(nodes) == 1 and isinstance(nodes[0], str):
        return nodes[0]
    check_depth(depth)
    pieces: list[str] = []
    for index, node in enumerate(nodes):
        if isinstance(node, str):
            pieces.append(node)
            continue
        tag = node.tag
        if mark := MARKS.get(tag):
            if index and _mark(nodes[index - 1]) == mark:
                continue  # `<b>a</b><b>b</b>` is one emphasis, written with the first
            pieces.append(_emphasis(nodes, index, mark, depth, marks, pieces))
        elif tag == "br":
            # Some pages have a line break after `<br>`, others do not.
            is_broken = index + 1 < len(nodes) and str(nodes[index + 1]).startswith("\n")
            pieces.append(BREAK[:-1] if is_broken else BREAK)
        elif tag == "code":
            pieces.append(hide(markdown.code_span(node.text())))
        elif tag not in SKIPPED_TAGS and tag != "input":
            pieces.append(_element(node, depth, marks))
    return "".join(pieces)


def _emphasis(nodes: Sequence[Node], index: int, mark: str, depth: int, marks: str, before: Sequence[str]) -> str:
    """The emphasis that begins with this node. `before`: the Markdown that stands before it, in pieces."""
    around = marks if (is_inside := f" {mark} " in marks) else f"{marks} {mark} "
    content = ""
    end = index
    while end < len(nodes) and isinstance(node := nodes[end], Element) and MARKS.get(node.tag) == mark:
        content += inline(node.children, depth + 1, around)
        end += 1
    if is_inside:
        return content
    if "*" in mark and _needs_underscores(nodes, end, before):
        mark = mark.replace("*", "_")
    return markdown.emphasis(content, mark)


def _mark(node: Node) -> str | None:
    return MARKS.get(node.tag) if isinstance(node, Element) else None


def _needs_underscores(nodes: Sequence[Node], index: int, before: Sequence[str]) -> bool:
    """Whether emphasis is right beside another, so that their stars would form one run, and underscores can be read.

    Underscores open and close emphasis only at the edges of words (CommonMark 0.31, section 6.2).
    """
    following = nodes[index] if index < len(nodes) else ""
    last = before[-1][-1:] if before else ""
    if _mark(following):
        return not last.isalnum() and last != hide("_")
    word = following if isinstance(following, str) else following.text()
    return last == hide("*") and not word[:1].isalnum()


def _element(node: Element, depth: int, marks: str) -> str:
    """An inline element other than emphasis, a break or code."""
    tag = node.tag
    if node.classes:
        if is_formula(node.classes):
            return hide(inline_formula(node))
        if is_display_formula(node.classes):
            return f"\n{hide(display_formula(node))}\n"
    if tag == "img":
        return _image(node)
    content = inline(node.children, depth + 1, marks)
    if tag == "a":
        is_marked = "target" in node.attributes
        return markdown.link(content, node.get("href"), node.get("title"), is_auto_linked=is_marked)
    if tag in ("sup", "sub") and content.strip():
        return f"{hide(f'<{tag}>')}{content}{hide(f'</{tag}>')}"
    return f"\n{content}\n" if tag in BLOCK_TAGS else content


def _image(node: Element) -> str:
    source, alt = node.get("src"), one_line(node.get("alt"))
    if not source or source.startswith("data:"):
        return alt
    return hide(f"![{escape_words(alt)}]({markdown.destination(source, node.get('title'))})")
