"""Which words in front of a verdict make it one: the judge's own, not a form quoted, a loser named or a doubt.

For `verdict`, which finds the marks and asks here about each. What states a verdict is a short list on purpose: an
unknown turn of phrase costs one more question to the judge, a wrong reading the result.
"""

import re
from dataclasses import dataclass

NOUN = r"(?:verdict|decision|choice|judge?ment|winner|score|rating|grade)"
_OPENING = (
    r"(?:(?:so|thus|hence|therefore|overall|finally|all\s+in\s+all|on\s+balance|on\s+the\s+whole|"
    r"in\s+(?:conclusion|summary|sum|short))\b[,:]?\s*)"
)
_NAMED = rf"(?:(?:my|the|our)\s+)?(?:(?:final|overall)\s+)*{NOUN}(?:\s+(?:is|of|goes\s+to))?"
_END = r"[\s:=>(–—-]*\Z"
_LABEL = re.compile(rf"{_OPENING}*{_NAMED}{_END}", re.I)
_STATED = re.compile(
    rf"""(?:\A|[,;:(–—]\s*|\band\s+)(?:{_OPENING}+|{_OPENING}*(?:
        (?:(?:here|this)\s+is\s+)?{_NAMED}
      | (?:the\s+)?(?:better|best|stronger|superior|preferred|winning)
        (?:\s+(?:answer|assistant|response|one|model))?(?:\s+overall)?\s+is(?:\s+clearly)?
      | (?:(?:answer|assistant|response|model)\s+)?(?P<letter>[AB])\s+
        (?:wins|is\s+(?:clearly\s+)?(?:better|stronger|superior|the\s+winner))(?:\s+overall)?
      | (?:I|we)(?:\s+|'(?:d|ll)\s+)(?:\w+\s+){{0,2}}
        (?:choose|pick|prefer|rate|give|award|assign|grade|score|judge|select|favou?r|go\s+with|vote\s+for)
        (?:\s+(?:it|this|the|an?|assistant(?:'s)?|answer|response|as|with|at|of|overall|final|score|rating|grade))*
      | (?:it|(?:the|this|assistant's)\s+(?:answer|response)|the\s+assistant)\s+
        (?:deserves|earns|merits|gets|receives)(?:\s+(?:an?|the|overall|final|score|rating|grade|of))*
    )){_END}""",
    re.I | re.X,
)
_LOSER = r"los(?:e|er|ers|es|ing|t)|weak\w*|wors(?:e|t)|inferior|poor(?:er|est)|less\s+\w+\s+(?:answer|assistant|one)"
_QUOTED = r"example|e\.g|such\s+as|samples?|suppose|imagine|hypothetical\w*"
_DOUBT = re.compile(
    rf"""\b(?:not|never|neither|nor|cannot|hardly|rather|instead|unless|if|whether|either|might|may|could|maybe|perhaps
    |possibly|would\s+(?:have|be|get)|only|alone|forms?|format|template|schema|{_LOSER}|{_QUOTED})\b|n't\b""",
    re.I | re.X,
)
_IN_THAT_FORM = re.compile(r"\b(?:in|as|using|following)\s+(?:\w+\s+){0,3}(?:form|format|schema)\b", re.I)
_JSON_LEAD = re.compile(
    r"\b(?:here|this|below|following|json|verdict|evaluation|judge?ment|assessment|decision|score|rating|result)\b",
    re.I,
)
_OTHERS_WORDS = re.compile(
    r"\b(?:(?:answer|assistant)\s+[AB]|includ\w+|contain\w*|quot\w+|writ\w+|wrote|sa(?:id|ys)|claim\w*)\b", re.I
)
_UNDECIDED = re.compile(
    r"\b(?:undecided|no\s+verdict|I\s+(?:refuse|(?:can(?:not|'t)|could(?:\s+not|n't)|am\s+(?:unable|not\s+able)\s+to)\s+"
    r"(?:\w+ly\s+)?(?:decide|say|tell|judge|choose|pick|determine|give|grade|rate|score)))\b",
    re.I,
)
_TAKEN_BACK = re.compile(
    rf"""\b(?:cannot|can't|unable|undecided|hard\s+to\s+say|not\s+sure|wait|actually|instead|correct(?:ion|ed)|mistake
    |reconsider\w*|second\s+thoughts?|reflection|chang\w+\s+my|revis\w*|retract\w*|ignore|disregard|would|forms?|format
    |template|not\s+(?:my|the|an?)|{_LOSER}|{_QUOTED})\b""",
    re.I | re.X,
)
_HANGING = re.compile(r"(?:[:,;=–—-]|\b(?:is|are|be|as|with|like|to|of|say|write|give|choose|example))\Z", re.I)
# A sentence that has ended, or a point of a list.
_WHOLE = re.compile(r"(?:[.!?][)\]'’]*|^\s*(?:[-*•+]|\d+[.)])\s.*)\Z")
_HEADING = re.compile(r"\s*(?:#|\*\*[^*]+\*\*\s*\Z|__[^_]+__\s*\Z)")


@dataclass(frozen=True)
class Lead:
    """What stands in front of a place in the text.

    Attributes:
        own: the words of its sentence on its own line.
        hanging: the line above, where it runs on into the place (`My verdict is:`) or is a heading.
        is_heading: that line is a heading, a title rather than half a sentence.
        before: the last whole sentence before the place.
        is_same_line: `before` stands on the same line.
    """

    own: str
    hanging: str
    is_heading: bool
    before: str
    is_same_line: bool


def lead(text: str, start: int) -> Lead:
    """The words before `text[start]`."""
    above, _, line = text[:start].rpartition("\n")
    sentences = _sentences(re.sub(r"\A\s*```\w*|\A[\s•-]+", "", line))
    own = sentences.pop() if sentences and not sentences[-1].endswith((".", "!", "?")) else ""
    if sentences:
        return Lead(own, "", False, sentences[-1], True)
    lines = [one for one in above.split("\n") if not one.lstrip().startswith("```")]
    is_adjacent = bool(plain(lines[-1])) if lines else False
    lines = [one for one in lines if _has_word(one)]
    if not lines:
        return Lead(own, "", False, "", False)
    last = plain(lines[-1])
    is_heading = bool(_HEADING.match(lines[-1]))
    if is_heading or _HANGING.search(last) or (is_adjacent and not _WHOLE.search(lines[-1].rstrip(" *_`"))):
        return Lead(own, last, is_heading, "", False)
    return Lead(own, "", False, _sentences(last)[-1], False)


def is_label(words: str) -> bool:
    """Whether the words are a label and nothing else: `Final verdict:`."""
    return bool(_LABEL.match(plain(words)))


def introduces(found: Lead, value: object) -> bool:
    """Whether a mark with `value` after such words is the verdict that the judge gives."""
    if _UNDECIDED.search(found.before):
        return False
    if found.own:
        above = found.hanging
        return _states(found.own, value) and not _DOUBT.search(above) and not _UNDECIDED.search(above)
    if found.hanging:
        return not _DOUBT.search(found.hanging) if found.is_heading else _states(found.hanging, value)
    if not found.is_same_line:
        return True
    names_it = isinstance(value, str) and re.search(rf"\b{value}\b", found.before)
    return not re.search(rf"\b(?:{_QUOTED})\b", found.before, re.I) and not (
        names_it and re.search(rf"\b(?:{_LOSER})\b", found.before, re.I)
    )


def introduces_json(found: Lead) -> bool:
    """Whether a JSON verdict with its explanation is the judge's own after such words. It is too long for a form, so
    any words may lead to it but those of a doubt, and `in the requested format` is none."""
    if _UNDECIDED.search(found.before) or (found.own and not found.own.endswith(":")):
        return False
    words = _IN_THAT_FORM.sub("", f"{found.hanging} {found.own}")
    if words.strip() and not found.is_heading and (not _JSON_LEAD.search(words) or _OTHERS_WORDS.search(words)):
        return False
    return not _DOUBT.search(words) and not _UNDECIDED.search(words)


def takes_back(after: str) -> bool:
    """Whether the words after a verdict may take it back, or go on with its sentence."""
    after = plain(after)
    return after[:1].islower() or bool(_TAKEN_BACK.search(after))


def plain(words: str) -> str:
    """Words without Markdown's marks, with straight apostrophes."""
    return re.sub(r"[*_`#>\"“”]+", "", words).replace("’", "'").strip()


def _states(words: str, value: object) -> bool:
    match = _STATED.search(words[-300:])
    return match is not None and match["letter"] in (None, value) and not _DOUBT.search(words)


def _sentences(line: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.!?])[)\]]*\s+", plain(line)) if _has_word(one)]


def _has_word(line: str) -> bool:
    return bool(re.search(r"[^\W_]", line))
