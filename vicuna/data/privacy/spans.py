"""Spans of a text: where private data stands in it."""

Span = tuple[int, int]  # start and end, in characters


def is_standalone(text: str, start: int, end: int, joiners: str) -> bool:
    """Whether a span is no part of a longer word, nor of a longer number.

    Args:
        joiners: characters that join two numbers to a longer one, as in 1.2.3.4.5.
    """
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before and (before[-1].isalnum() or before[-1] == "_" or (before[-1] in joiners and before[0].isdigit())):
        return False
    return not (after and (after[0].isalnum() or after[0] == "_" or (after[0] in joiners and after[1:].isdigit())))
