"""Answers cut where a block of Markdown ends: after a whole paragraph, list item, table or code block.

For `split`, when one round alone is longer than the token budget. Code stays whole, so no fence is left open, and the
last block is neither a heading nor a line that announces what follows (`For example:`).
"""

import re
from collections.abc import Callable

FENCE = re.compile(r"[ \t>]*(?:(?:[-+*]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})")
LIST_ITEM = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])[ \t]+\S")
HEADING = re.compile(r" {0,3}#{1,6}\s|\s*(\*\*|__)[^*_]+\1\s*$")  # or a line in bold, which serves as one
MATH = "$$"


def shorten(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning of `text` that fits and ends where a block ends; None if not even the first block fits.

    Args:
        fits: whether a text is short enough; called with the result too.
    """
    ends = [end for end in block_ends(text) if _may_be_last(text[text.rfind("\n", 0, end) + 1 : end])]
    low, high = 0, len(ends)  # the first `low` are known to fit
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[: ends[middle - 1]]):
            low = middle
        else:
            high = middle - 1
    return text[: ends[low - 1]] if low else None


def block_ends(text: str) -> list[int]:
    """The offsets in a Markdown text at which a block ends, in order, without the text's own end."""
    ends: list[int] = []
    fence = ""  # the marks that opened the block we are in
    is_after_block = False
    position = content_end = 0
    for line in text.splitlines(keepends=True):
        match = FENCE.match(line)
        stripped = line.strip()
        starts_block = is_after_block or bool(match) or LIST_ITEM.match(line) is not None or stripped == MATH
        if not fence and stripped and starts_block and content_end:
            ends.append(content_end)
        closes = False
        if fence:
            closes = stripped.lstrip("> \t").startswith(fence) and not stripped.lstrip("> \t").strip(fence[0])
            fence = "" if closes else fence
        elif match:
            fence = match[1]
        elif stripped == MATH:
            fence = MATH
        position += len(line)
        if stripped:
            content_end = position - (len(line) - len(line.rstrip()))
            is_after_block = closes
        else:
            is_after_block = True
    return ends


def _may_be_last(last: str) -> bool:
    """Whether a block may end an answer, by its last line."""
    return not HEADING.match(last) and not last.rstrip("*_ ").endswith(":")
