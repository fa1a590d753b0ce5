"""The verdict in a judge's reply: `read_pair` and `read_score` return it, or None where it is not certain.

After `judge` has a reply, before it is kept. Three forms are read: the JSON object that the schema asks for, text with
a marked verdict (`[[A]]`, `[[7]]`), and a last line with a caption (`Verdict: A`). Judges quote the form before they
use it, weigh both sides aloud, name the loser, break off, or write something else; so a form counts only where its
context gives a verdict (`wording`), and only if no other one contradicts it. What remains is unreadable, which costs
one more call to the judge; a wrong reading would falsify the result.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from vicuna.eval.wording import NOUN, context_before, is_caption, is_json_verdict, is_verdict, may_retract, plain

Winner = Literal["A", "B", "tie"]
MIN_SCORE, MAX_SCORE = 1.0, 10.0

_MARK = re.compile(r"\[\[\s*([^\[\]\n]{1,24}?)\s*\]\](?:\s*/\s*10\b)?")
_LINE_END = re.compile(r"[\s*_`\"'”’#>.!)=-]*")
_CAPTIONED = re.compile(
    rf"(?P<caption>(?:my |the )?(?:final |overall )*{NOUN}\s*[:=])\s*(?:(?:answer|assistant|model|response)\s+)?"
    r"(?P<value>[^\s\[\]]+(?:\s*/\s*10| out of 10)?)",
    re.I,
)
_NUMBER = re.compile(r"(?:(?:score|rating|grade)\s*:?\s*)?([0-9]{1,2}(?:\.[0-9]{1,3})?)(?:\s*/\s*10| out of 10)?", re.I)
_PLACEHOLDER = re.compile(
    r"<[^<>]*>|(?:[\W_]|\b(?:your|the|an?|brief|short|explanation|reasoning|string|text|goes|here)\b)+", re.I
)
_FENCED = re.compile(r"\A```(?:json)?\s*\n?(.*?)\n?```\s*\Z", re.S)
_MIN_EXPLANATION_WORDS = 3

Convert = Callable[[Any], Any]


def read_pair(reply: str) -> Winner | None:
    """Which of two answers the judge prefers, or None if that cannot be read for certain."""
    found: Winner | None = _read(reply, "verdict", _winner)
    return found


def read_score(reply: str) -> float | None:
    """The judge's score from 1 to 10, or None if that cannot be read for certain."""
    found: float | None = _read(reply, "score", _score)
    return found


def explanation(reply: str) -> str:
    """The judge's words without the JSON around them."""
    text = reply.strip()
    fenced = _FENCED.match(text)
    found = _object_at(fenced[1].strip() if fenced else text, 0)
    words = found[1].get("explanation") if found else None
    return words if isinstance(words, str) else reply


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


def _read(reply: str, field: str, convert: Convert) -> Any:
    """The verdict that the reply gives, or None."""
    text = reply.rpartition("</think>")[2].strip()  # what a reasoning model thinks aloud is not its verdict
    objects = _objects(text)
    rest = list(text)
    for start, end, _ in objects:
        rest[start:end] = " " * (end - start)
    words = "".join(rest)
    if "<think>" in text or re.search(r"\{\s*\"(?:explanation|verdict|score)\"", words):
        return None  # broken off: whatever stands in it is not the verdict
    from_words = _read_words(words, convert)
    verdicts = [(end, found) for start, end, found in objects if field in found and _is_judges_own(text, start, found)]
    if not verdicts:
        return from_words
    values = {convert(found[field]) for _, found in verdicts}
    after = words[verdicts[-1][0] :]
    if len(values) > 1 or from_words not in (None, *values) or _MARK.search(after) or may_retract(after):
        return None
    return values.pop()


def _objects(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """The JSON objects in a text, outermost ones only: start, end, content."""
    found: list[tuple[int, int, dict[str, Any]]] = []
    for match in re.finditer(r"\{\s*\"", text):
        start = match.start()
        if (not found or start >= found[-1][1]) and (one := _object_at(text, start)):
            found.append((start, *one))
    return found


def _object_at(text: str, start: int) -> tuple[int, dict[str, Any]] | None:
    """The JSON object that begins there, after its end."""
    try:
        found, end = json.JSONDecoder(strict=False, object_pairs_hook=_without_repeats).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (end, found) if isinstance(found, dict) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _is_judges_own(text: str, start: int, found: dict[str, Any]) -> bool:
    """Whether a JSON verdict is the judge's own and neither the prompt's form repeated nor quoted from an answer."""
    words = found.get("explanation")
    words = words.strip() if isinstance(words, str) else ""
    if _PLACEHOLDER.fullmatch(words):
        return False
    is_explained = len(words.split()) >= _MIN_EXPLANATION_WORDS
    return (
        is_json_verdict(context_before(text, start)) if is_explained else is_verdict(context_before(text, start), None)
    )


def _read_words(text: str, convert: Convert) -> Any:
    """The verdict that is given outside JSON, or None."""
    places = list(re.finditer(r"^.*[^\W_].*$", text, re.M))
    lines = [plain(place[0]).strip("'. ") for place in places]
    captioned = [match for line in lines if (match := _CAPTIONED.fullmatch(line))]
    values = {convert(match["value"]) for match in captioned}
    if marks := list(_MARK.finditer(text)):
        value = convert(marks[-1][1])
        return value if values <= {None, value} and _is_given(text, marks, convert) else None
    if captioned and captioned[-1][0] == lines[-1]:
        found = replace(context_before(text, places[-1].start()), sentence=captioned[-1]["caption"])
        return values.pop() if len(values) == 1 and is_verdict(found, None) else None
    return convert(lines[0]) if len(lines) == 1 and len(lines[0]) <= 12 else None


def _is_given(text: str, marks: list[re.Match[str]], convert: Convert) -> bool:
    """Whether the last of the marks is the judge's verdict, and no other one speaks against it."""
    last = marks[-1]
    value = convert(last[1])
    others = [mark for mark in marks if convert(mark[1]) != value]
    if not is_verdict(context_before(text, last.start()), value):
        return False
    if not _LINE_END.fullmatch(text, last.end()):
        return not others and all(_is_alone(text, mark) for mark in marks) and not may_retract(text[last.end() :])
    # A last line `[[C]]` under lines `[[A]]` and `[[B]]` is a list of what may be said.
    line_start = text.rfind("\n", 0, last.start()) + 1
    above = len(text[:line_start].rstrip())
    is_listed = any(_is_first(text, mark) and "\n" not in text[mark.end() : above] for mark in others)
    return not others or (_is_alone(text, last) and not is_listed)


def _is_first(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark begins its line, perhaps after a caption."""
    before = plain(text[: mark.start()].rpartition("\n")[2]).strip(" -•")
    return not before or is_caption(before)


def _is_alone(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark is all that its line holds, but for a caption."""
    return _is_first(text, mark) and bool(_LINE_END.fullmatch(text[mark.end() :].partition("\n")[0]))
