"""From what a judge wrote to a verdict, or to none: never to a wrong one.

After `judge` has a reply, before it is kept. Two forms are read: the JSON object that the schema asks for, and text
with a marked verdict (`[[A]]`, `[[7]]`). Judges quote the form before they use it, weigh both sides aloud, break off,
or write something else; so a statement counts if it stands alone at the end, and otherwise only if it is the only one,
in a place where a verdict is given. What remains is unreadable, which costs one more question to the judge; a wrong
reading would cost the result.
"""

import json
import re
from typing import Any, Literal

Winner = Literal["A", "B", "tie"]
MIN_SCORE, MAX_SCORE = 1.0, 10.0

_LABEL = (
    r"(?:(?:my |the )?(?:final |overall )?(?:verdict|decision|choice|winner|score|rating|grade)(?: is)?\s*[:=]?\s*)?"
)
_EDGE = r"[\s*_`\"'#>.!]*"
_MARK = re.compile(r"\[\[\s*([^\[\]\n]{1,24}?)\s*\]\]")
_MARK_ALONE = re.compile(rf"{_EDGE}{_LABEL}{_EDGE}\[\[\s*([^\[\]\n]{{1,24}}?)\s*\]\]{_EDGE}", re.I)
_LABELLED = re.compile(
    r"(?:final |overall )?(?:verdict|decision|winner|score|rating|grade)\s*[:=]\s*"
    r"(?:(?:answer|assistant|model|response)\s+)?(?P<value>[^\s*_`\"'\[\]]+(?:\s*/\s*10| out of 10)?)",
    re.I,
)
_NUMBER = re.compile(r"(?:(?:score|rating|grade)\s*:?\s*)?([0-9]{1,2}(?:\.[0-9]{1,3})?)(?:\s*/\s*10| out of 10)?", re.I)
_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|cannot|hardly|rather|instead|unless|if|either|would have)\b|n't\b", re.I
)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.S)


def read_pair(reply: str) -> Winner | None:
    """Which of two answers the judge prefers, or None if that cannot be read for certain."""
    value = _read(reply, "verdict")
    return None if value is None else _winner(value)


def read_score(reply: str) -> float | None:
    """The judge's score from 1 to 10, or None if that cannot be read for certain."""
    value = _read(reply, "score")
    return None if value is None else _score(value)


def explanation(reply: str) -> str:
    """The judge's words without the JSON around them."""
    found = _whole_json(reply)
    return found["explanation"] if found and isinstance(found.get("explanation"), str) else reply


def _winner(value: Any) -> Winner | None:
    if not isinstance(value, str):
        return None
    word = re.sub(r"^(?:answer|assistant|model|response)\s+", "", value.strip(), flags=re.I).upper()
    winners: dict[str, Winner] = {"A": "A", "B": "B", "C": "tie", "TIE": "tie"}
    return winners.get(word)


def _score(value: Any) -> float | None:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if MIN_SCORE <= value <= MAX_SCORE else None


def _read(reply: str, field: Literal["verdict", "score"]) -> Any:
    """The raw value that the reply states, or None."""
    text = reply.strip()
    convert = _winner if field == "verdict" else _score
    if (found := _whole_json(text)) is not None:
        return found.get(field)
    if text.startswith(("{", "```json")):
        return None  # JSON that broke off: whatever stands in it is not the verdict
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if (last := _last_json(text)) is not None and field in last:
        return last[field]
    if match := _MARK_ALONE.fullmatch(lines[-1]):
        return match[1]
    marks = [match[1] for match in _MARK.finditer(text)]
    if marks:
        values = {str(convert(mark)) for mark in marks}
        stated = [line for line in lines if _MARK.search(line)]
        is_stated = all(_MARK_ALONE.fullmatch(line) for line in stated) or (
            len(stated) == 1 and re.search(rf"\]\]{_EDGE}\Z", text) and not _NEGATION.search(_sentence_before(text))
        )
        return marks[0] if len(values) == 1 and is_stated else None
    bare = lines[-1].strip("*_`\"'#>. ")
    if match := _LABELLED.fullmatch(bare):
        return match["value"]
    return bare if len(lines) == 1 and len(bare) <= 12 else None


def _sentence_before(text: str) -> str:
    """The words of the last mark's own sentence, up to the mark."""
    before = text[: text.rindex("[[")]
    return re.split(r"[.!?:]\s|\n", before)[-1]


def _whole_json(text: str) -> dict[str, Any] | None:
    """The reply as one JSON object (perhaps in a fence); None if it is not exactly that."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    return _object(text) if text.startswith("{") else None


def _last_json(text: str) -> dict[str, Any] | None:
    """A JSON object, without objects inside, that ends the reply after some words."""
    text = re.sub(r"\s*```\s*\Z", "", text)
    start = text.rfind("{")
    return _object(text[start:]) if start > 0 and text.endswith("}") else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text, strict=False, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found
