"""Markdown syntax: code, emphasis, links, lists, quotations and tables.

Emphasis and links have their syntax hidden (see `escape`), because the text in them is still to be escaped.
"""

import re
from collections.abc import Sequence

from vicuna.data.html.dom import one_line
from vicuna.data.html.escape import escape_reference, hide, hide_brackets

# White space and hard breaks at the ends of marked text.
EDGE_SPACE = (
    " \t\n\r\f\v\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\udc20"
)
BARE_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]+@[\w.-]+")
ANGLE_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\s<>]+|[\w.+-]+@[\w.-]+")
STAR_OR_UNDERSCORE = hide("*_")


def code_span(code: str) -> str:
    """Inline code; the delimiter is longer than any run of backticks inside."""
    code = " ".join(line.strip() for line in code.split("\n")) if "\n" in code else code
    if not code:
        return ""
    if "`" not in code and code[0] != " ":
        return f"`{code}`"
    runs = {len(run) for run in re.findall("`+", code)}
    ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    is_padded = code[0] == " " == code[-1] and code.strip(" ")
    pad = " " if code.startswith("`") or code.endswith("`") or is_padded else ""
    return f"{ticks}{pad}{code}{pad}{ticks}"


def code_fence(code: str, language: str) -> str:
    """A fenced block that holds `code` byte for byte; the fence is longer than any run of its mark inside."""
    mark = "~" if "`" in language else "`"
    longest = max((len(run) for run in re.findall(mark + "{3,}", code)), default=2) if mark * 3 in code else 2
    fence = mark * (longest + 1)
    end = "" if code.endswith("\n") or not code else "\n"
    return f"{fence}{language}\n{code}{end}{fence}"


def emphasis(content: str, mark: str) -> str:
    """`content` between marks, with the white space and breaks at its ends outside of them."""
    inner = content.strip(EDGE_SPACE)
    if not inner:
        return content
    start = end = ""
    if len(inner) < len(content):
        start, end = content[: -len(content.lstrip(EDGE_SPACE))], content[len(content.rstrip(EDGE_SPACE)) :]
    if inner[0] in STAR_OR_UNDERSCORE:  # the marks would join to a run with another meaning
        if "*" in mark and _is_one_star(inner):
            mark = mark.replace("*", "_")
        elif _is_one_star(inner.replace(hide("_"), hide("*"))):
            mark = mark.replace("_", "*")
    hidden = hide(mark)
    return f"{start}{hidden}{inner}{hidden}{end}"


def _is_one_star(inner: str) -> bool:
    """Whether marked text begins and ends with exactly one star."""
    star = hide("*")
    begin, end = len(inner) - len(inner.lstrip(star)), len(inner) - len(inner.rstrip(star))
    return begin == end == 1 < len(inner)


def link(text: str, address: str, title: str | None, *, is_auto_linked: bool) -> str:
    """A link; if its text is its address, the address in angle brackets.

    Args:
        is_auto_linked: whether the page makes links of plain addresses; then it needs no angle brackets.
    """
    if not address or not text.strip():
        return text
    if not title and (address == text or address == f"mailto:{text}"):
        if is_auto_linked and BARE_ADDRESS.fullmatch(text):
            return hide(text)
        if ANGLE_ADDRESS.fullmatch(text):
            return hide(f"<{text}>")
    return f"{hide('[')}{hide_brackets(text)}{hide(f']({destination(address, title)})')}"


def destination(address: str, title: str | None) -> str:
    """Destination and title of a link or image, as between its parentheses (CommonMark 0.31, section 6.3)."""
    address = escape_reference(address.strip().replace("\n", "%0A"))
    if re.search(r"[\s<>]|^$", address) or not _is_balanced(address):
        address = "<" + address.replace("<", "%3C").replace(">", "%3E") + ">"
    if not title:
        return address
    shown = escape_reference(one_line(title)).replace('"', '\\"')
    return f'{address} "{shown}"'


def _is_balanced(address: str) -> bool:
    depth = 0
    for character in address:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return not depth


def indent(text: str, first: str, rest: str) -> str:
    """`text` with `first` before its first line and `rest` before each other line that is not empty."""
    if "\n" not in text:
        return first + text
    head, *lines = text.split("\n")
    return "\n".join([first + head, *(rest + line if line else "" for line in lines)])


def quote(text: str) -> str:
    """A quotation."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def table(rows: Sequence[Sequence[str]], alignments: Sequence[str]) -> str:
    """A table; the first row is the head. Cells are one line each, with `|` escaped."""
    width = max(len(row) for row in rows)
    marks = {"left": ":---", "right": "---:", "center": ":---:"}
    rule = [marks.get(alignment, "---") for alignment in [*alignments, *[""] * width][:width]]
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    lines = [full[0], rule, *full[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
