"""Which words before a marked verdict make it the judge's own, rather than a quoted form, a named loser or a doubt.

For `verdict`, which finds the marks and asks here about each. The list of phrases that give a verdict is short on
purpose: an unknown phrase costs one more call to the judge, a wrong reading falsifies the result.
"""

import re
from dataclasses import dataclass

NOUN = r"(?:verdict|decision|choice|judge?ment|winner|score|rating|grade)"
_CONNECTIVE = (
    r"(?:(?:so|thus|hence|therefore|overall|finally|all\s+in\s+all|on\s+balance|on\s+the\s+whole|"
    r"in\s+(?:conclusion|summary|sum|short))\b[,:]?\s*)"
)
_NAMED_VERDICT = rf"(?:(?:my|the|our)\s+)?(?:(?:final|overall)\s+)*{NOUN}(?:\s+(?:is|of|goes\s+to))?"
_END = r"[\s:=>(–—-]*\Z"
_CAPTION = re.compile(rf"{_CONNECTIVE}*{_NAMED_VERDICT}{_END}", re.I)
_VERDICT_GIVEN = re.compile(
    rf"""(?:\A|[,;:(–—]\s*|\band\s+)(?:{_CONNECTIVE}+|{_CONNECTIVE}*(?:
        (?:(?:here|this)\s+is\s+)?{_NAMED_VERDICT}
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
_JSON_INTRODUCTION = re.compile(
    r"\b(?:here|this|below|following|json|verdict|evaluation|judge?ment|assessment|decision|score|rating|result)\b",
    re.I,
)
_SPEAKS_OF_ANOTHER = re.compile(
    r"\b(?:(?:answer|assistant)\s+[AB]|includ\w+|contain\w*|quot\w+|writ\w+|wrote|sa(?:id|ys)|claim\w*)\b", re.I
)
_UNDECIDED = re.compile(
    r"\b(?:undecided|no\s+verdict|I\s+(?:refuse|(?:can(?:not|'t)|could(?:\s+not|n't)|am\s+(?:unable|not\s+able)\s+to)\s+"
    r"(?:\w+ly\s+)?(?:decide|say|tell|judge|choose|pick|determine|give|grade|rate|score)))\b",
    re.I,
)
_RETRACTION = re.compile(
    rf"""\b(?:cannot|can't|unable|undecided|hard\s+to\s+say|not\s+sure|wait|actually|instead|correct(?:ion|ed)|mistake
    |reconsider\w*|second\s+thoughts?|reflection|chang\w+\s+my|revis\w*|retract\w*|ignore|disregard|would|forms?|format
    |template|not\s+(?:my|the|an?)|{_LOSER}|{_QUOTED})\b""",
    re.I | re.X,
)
_UNFINISHED_LINE = re.compile(r"(?:[:,;=–—-]|\b(?:is|are|be|as|with|like|to|of|say|write|give|choose|example))\Z", re.I)
# A line that ends with its sentence, or a list item.
_FINISHED_LINE = re.compile(r"(?:[.!?][)\]'’]*|^\s*(?:[-*•+]|\d+[.)])\s.*)\Z")
_HEADING = re.compile(r"\s*(?:#|\*\*[^*]+\*\*\s*\Z|__[^_]+__\s*\Z)")


@dataclass(frozen=True)
class Context:
    """The words before a place in the text.

    Attributes:
        sentence: the unfinished sentence on the same line that the place ends.
        line_above: the line above, where it is unfinished (`My verdict is:`) or a heading.
        is_heading: `line_above` is a heading, a title rather than half a sentence.
        sentence_before: the last finished sentence before the place.
        is_same_line: `sentence_before` stands on the same line.
    """

    sentence: str
    line_above: str
    is_heading: bool
    sentence_before: str
    is_same_line: bool


def context_before(text: str, start: int) -> Context:
    """The words before `text[start]`, Markdown's marks left out."""
    above, _, line = text[:start].rpartition("\n")
    sentences = _sentences(re.sub(r"\A\s*```\w*|\A[\s•-]+", "", line))
    sentence = sentences.pop() if sentences and not sentences[-1].endswith((".", "!", "?")) else ""
    if sentences:
        return Context(sentence, "", False, sentences[-1], True)
    lines = [one for one in above.split("\n") if not one.lstrip().startswith("```")]
    is_adjacent = bool(plain(lines[-1])) if lines else False
    lines = [one for one in lines if _has_word(one)]
    if not lines:
        return Context(sentence, "", False, "", False)
    last = plain(lines[-1])
    is_heading = bool(_HEADING.match(lines[-1]))
    is_unfinished = is_adjacent and not _FINISHED_LINE.search(lines[-1].rstrip(" *_`"))
    if is_heading or is_unfinished or _UNFINISHED_LINE.search(last):
        return Context(sentence, last, is_heading, "", False)
    return Context(sentence, "", False, _sentences(last)[-1], False)


def is_caption(words: str) -> bool:
    """Whether the words are a caption and nothing else: `Final verdict:`."""
    return bool(_CAPTION.match(plain(words)))


def is_verdict(context: Context, value: object) -> bool:
    """Whether a mark with `value` in this context is the verdict that the judge gives."""
    if _UNDECIDED.search(context.sentence_before):
        return False
    if context.sentence:
        above = context.line_above
        return _gives_verdict(context.sentence, value) and not _DOUBT.search(above) and not _UNDECIDED.search(above)
    if context.line_above:
        return (
            not _DOUBT.search(context.line_above) if context.is_heading else _gives_verdict(context.line_above, value)
        )
    if not context.is_same_line:
        return True
    names_it = isinstance(value, str) and re.search(rf"\b{value}\b", context.sentence_before)
    return not re.search(rf"\b(?:{_QUOTED})\b", context.sentence_before, re.I) and not (
        names_it and re.search(rf"\b(?:{_LOSER})\b", context.sentence_before, re.I)
    )


def is_json_verdict(context: Context) -> bool:
    """Whether a JSON verdict with its explanation is the judge's own in this context.

    It is too long to be a quoted form, so any words may introduce it but those of a doubt; `in the requested format` is
    no doubt.
    """
    if _UNDECIDED.search(context.sentence_before) or (context.sentence and not context.sentence.endswith(":")):
        return False
    words = _IN_THAT_FORM.sub("", f"{context.line_above} {context.sentence}")
    is_introduction = _JSON_INTRODUCTION.search(words) and not _SPEAKS_OF_ANOTHER.search(words)
    if words.strip() and not context.is_heading and not is_introduction:
        return False
    return not _DOUBT.search(words) and not _UNDECIDED.search(words)


def may_retract(after: str) -> bool:
    """Whether the words after a verdict may retract it, or continue its sentence."""
    after = plain(after)
    return after[:1].islower() or bool(_RETRACTION.search(after))


def plain(words: str) -> str:
    """Words without Markdown's marks, with straight apostrophes."""
    return re.sub(r"[*_`#>\"“”]+", "", words).replace("’", "'").strip()


def _gives_verdict(words: str, value: object) -> bool:
    match = _VERDICT_GIVEN.search(words[-300:])
    return match is not None and match["letter"] in (None, value) and not _DOUBT.search(words)


def _sentences(line: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.!?])[)\]]*\s+", plain(line)) if _has_word(one)]


def _has_word(line: str) -> bool:
    return bool(re.search(r"[^\W_]", line))
