"""The verdict in a judge's reply: `read_pair` and `read_score` return it, or None where it is not certain.

After `judge` has a reply, before it is kept. Three forms are read: the JSON object that the schema asks for, text with
a marked verdict (`[[A]]`, `[[7]]`), and a last line with a caption (`Verdict: A`). Judges quote the form before they
use it, weigh both sides aloud, name the loser, break off, or write something else; so a form counts only where its
context gives a verdict (`wording`), and only if no other one contradicts it. What remains is unreadable, which costs
one more call to the judge; a wrong reading would falsify the result.
"""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from vicuna.eval.quoting import (
    MAX_OBJECTS,
    OBJECTS,
    holds_sections,
    is_disguised,
    is_quoted,
    visible,
    without_code,
    without_reserved,
)
from vicuna.eval.wording import (
    NOUN,
    context_before,
    contradicts,
    is_caption,
    is_end_of_thoughts,
    is_json_verdict,
    is_verdict,
    may_retract,
    plain,
)

Winner = Literal["A", "B", "tie"]
MIN_SCORE, MAX_SCORE = 1.0, 10.0
# A longer reply, or one with more marks (or beginnings of JSON objects: `MAX_OBJECTS`), is unreadable.
MAX_REPLY_CHARS = 1_000_000
MAX_MARKS = 64

_MARK = re.compile(r"\[\[\s{0,8}([^\[\]\n]{1,24}?)\s{0,8}\]\](?:\s{0,8}/\s{0,8}10\b|\s{1,8}out\s{1,8}of\s{1,8}10\b)?")
_LINE_END = re.compile(r"[\s*_#>.!)=\]-]*")
_CAPTIONED = re.compile(
    rf"(?P<caption>(?:my |the )?(?:final |overall )*{NOUN}\s*[:=])\s*(?:(?:answer|assistant|model|response)\s+)?"
    r"(?P<value>[^\s\[\]]+(?:\s*/\s*10| out of 10)?)",
    re.I,
)
_NUMBER = re.compile(r"(?:(?:score|rating|grade)\s*:?\s*)?([0-9]{1,2}(?:\.[0-9]{1,3})?)(?:\s*/\s*10| out of 10)?", re.I)
_PLACEHOLDER = re.compile(
    r"<[^<>]*>|(?:[\W_]|\b(?:your|the|an?|brief|short|explanation|reasoning|string|text|goes|here)\b)+", re.I
)
_BROKEN = re.compile(r"\"(?:explanation|verdict|score)\"\s*:|\{\s*\"(?:explanation|verdict|score)\"", re.I)
_BOXED = re.compile(r"\\boxed\s?\{([^{}\n]{1,24})\}")
_QUOTE = re.compile(r"[ \t]*(?:[-*+•][ \t]*)?>")
# What may follow a mark on its line: `[[A]] because it is right.`
_REASON = re.compile(r"\s*(?:because|since|as|for\s+a\s+tie)\b", re.I)
_SENTENCE_END = re.compile(r"[*_]*\.\s+[A-Z]")
_NEAR = 2000
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
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    found = _object_at(text, 0)
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
    if len(reply) > MAX_REPLY_CHARS:
        return None
    values = [_read_part(part, field, convert) for part in _after_thoughts(without_reserved(reply).strip())]
    return values[0] if values and len(set(values)) == 1 else None


def _after_thoughts(text: str) -> list[str]:
    """What a reasoning model says after what it thinks aloud, which is not its verdict: `<think>...</think>`.

    A contestant's `</think>` may be quoted before or after the model's own. So the text after the first and that after
    the last are given, which must agree, and none where the first one may be a quotation.
    """
    end = text.find("</think>")
    if end < 0 or (text.startswith("{") and (found := _object_at(text, 0)) and found[0] > end):
        return [text]
    if not text.startswith("<think>") and not is_end_of_thoughts(text[:end]):
        return []
    return [text[place + len("</think>") :].strip() for place in dict.fromkeys((end, text.rfind("</think>")))]


def _read_part(text: str, field: str, convert: Convert) -> Any:
    """The verdict in a reply without what was thought aloud."""
    objects, words = _take_objects(text)
    if words is None or "<think>" in words or is_disguised(words) or holds_sections(words):
        return None
    words = without_code(visible(words))
    if words is None or _BROKEN.search(words):
        return None
    from_words = _read_words(words, convert)
    places = [(words.find(sign), found) for sign, found in zip(OBJECTS, objects, strict=False)]
    own = [place for place, found in places if place >= 0 and field in found and _is_judges_own(words, place, found)]
    if not own:
        return from_words
    values = {convert(found[field]) for found in objects if field in found and not _is_placeholder(found)}
    is_broken = any(_is_nested(found, field) or ("explanation" in found and field not in found) for found in objects)
    if len(values) > 1 or is_broken:
        return None
    value, after = values.pop(), words[own[-1] + 1 :]
    before = context_before(words, own[-1]).sentence_before
    is_contradicted = (
        from_words not in (None, value)
        or _MARK.search(after)
        or may_retract(after, value)
        or contradicts(before, value)
    )
    return None if is_contradicted or after[:1].strip() else value


def _take_objects(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """The outermost JSON objects in a text, and the text with a sign of `OBJECTS` for each.

    No text if there are too many places where one may begin: a bound on the work, whatever is nested in what.
    """
    objects: list[dict[str, Any]] = []
    words: list[str] = []
    end = num_tried = 0
    for match in re.finditer(r"\{\s*\"", text):
        start = match.start()
        if start < end:
            continue
        num_tried += 1
        if num_tried > MAX_OBJECTS:
            return [], None
        if one := _object_at(text, start):
            words += [text[end:start], OBJECTS[len(objects)]]
            end, found = one
            objects.append(found)
    return objects, "".join([*words, text[end:]])


def _object_at(text: str, start: int) -> tuple[int, dict[str, Any]] | None:
    """The JSON object that begins there, after its end."""
    try:
        found, end = json.JSONDecoder(strict=False, object_pairs_hook=_without_repeats).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (end, found) if isinstance(found, dict) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {visible(name).strip().casefold(): value for name, value in pairs}
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _is_nested(found: dict[str, Any], field: str) -> bool:
    """Whether something inside the object has a verdict of its own."""
    inner = list(found.values())
    while inner:
        match inner.pop():
            case dict() as one:
                if field in one:
                    return True
                inner += one.values()
            case list() as some:
                inner += some
    return False


def _explanation_in(found: dict[str, Any]) -> str:
    words = found.get("explanation")
    return words.strip() if isinstance(words, str) else ""


def _is_placeholder(found: dict[str, Any]) -> bool:
    """Whether a JSON verdict is the prompt's form repeated: its explanation is `...` or the like."""
    words = _explanation_in(found)
    return bool(words) and len(words) < 200 and bool(_PLACEHOLDER.fullmatch(words))


def _is_judges_own(words: str, place: int, found: dict[str, Any]) -> bool:
    """Whether a JSON verdict is the judge's own and neither the prompt's form repeated nor quoted from an answer."""
    if _is_placeholder(found) or is_quoted(words, place, place + 1):
        return False
    is_explained = len(_explanation_in(found).split()) >= _MIN_EXPLANATION_WORDS
    context = context_before(words, place)
    return is_json_verdict(context) if is_explained else is_verdict(context, None)


def _read_words(text: str, convert: Convert) -> Any:
    """The verdict that is given outside JSON, or None."""
    marks = list(itertools.islice(_MARK.finditer(text), MAX_MARKS + 1))
    if len(marks) > MAX_MARKS:
        return None
    places = [place for place in re.finditer(r"^.*[^\W_].*$", text, re.M) if not _QUOTE.match(place[0])]
    lines = [plain(place[0]).strip("'. ") for place in places]
    captioned = [match for line in lines if len(line) <= 200 and (match := _CAPTIONED.fullmatch(line))]
    values = {convert(match["value"]) for match in captioned}
    if marks:
        value = convert(marks[-1][1])
        boxed = {convert(match[1]) for match in _BOXED.finditer(text)}
        return value if values | boxed <= {None, value} and _is_given(text, marks, convert) else None
    if captioned and captioned[-1][0] == lines[-1]:
        place = places[-1]
        found = replace(context_before(text, place.start()), sentence=captioned[-1]["caption"])
        value = convert(captioned[-1]["value"])
        start = text.rfind(captioned[-1]["value"], place.start(), place.end())
        is_own = is_verdict(found, None) and not is_quoted(text, start, start + len(captioned[-1]["value"]))
        return value if len(values) == 1 and is_own and not contradicts(found.sentence_before, value) else None
    return convert(lines[0]) if len(lines) == 1 and len(lines[0]) <= 12 and lines[0] == text.strip(" *_#.\n") else None


def _is_given(text: str, marks: list[re.Match[str]], convert: Convert) -> bool:
    """Whether the last of the marks is the judge's verdict, and no other one speaks against it."""
    last = marks[-1]
    value = convert(last[1])
    others = [mark for mark in marks if convert(mark[1]) != value]
    context = context_before(text, last.start())
    if (
        value is None
        or text[max(0, last.start() - 1) : last.start()] in ("[", "-", "−")
        or "..." in (text[max(0, last.start() - 3) : last.start()], text[last.end() : last.end() + 3])
        or is_quoted(text, last.start(), last.end())
        or not is_verdict(context, value)
    ):
        return False
    if contradicts(context.sentence_before, value) or any(_is_rival(text, mark, convert) for mark in others):
        return False
    if not _LINE_END.fullmatch(text, last.end()):
        is_finished = bool(_SENTENCE_END.match(text, last.end())) or all(_is_alone(text, mark) for mark in marks)
        return not others and is_finished and not may_retract(text[last.end() :], value)
    # A last line `[[C]]` under lines `[[A]]` and `[[B]]` is a list of what may be said.
    line_start = text.rfind("\n", 0, last.start()) + 1
    above = len(text[:line_start].rstrip())
    is_listed = any(_is_first(text, mark) and "\n" not in text[mark.end() : above] for mark in others)
    return not others or (_is_alone(text, last) and not is_listed)


def _is_rival(text: str, mark: re.Match[str], convert: Convert) -> bool:
    """Whether a mark is given as a verdict as well: a second one, since it has another value than the last."""
    value, start = convert(mark[1]), max(0, mark.start() - _NEAR)
    near = text[start : mark.end() + _NEAR]
    context = context_before(text, mark.start())
    is_bare = _is_alone(text, mark) and not context.sentence and not context.line_above
    return (
        value is not None
        and (is_bare or is_verdict(context, value))
        and not is_quoted(near, mark.start() - start, mark.end() - start)
    )


def _is_first(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark begins its line, perhaps after a caption."""
    line = text[max(0, mark.start() - _NEAR) : mark.start()].rpartition("\n")[2]
    before = plain(line).strip(" -•[")
    return not before or is_caption(before)


def _is_alone(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark is all that its line holds, but for a caption and a reason."""
    line = text[mark.end() : mark.end() + _NEAR].partition("\n")[0]
    return _is_first(text, mark) and bool(_LINE_END.fullmatch(line) or _REASON.match(line))
