"""Which words before a marked verdict make it the judge's own, rather than a quoted form, a named loser or a doubt.

For `verdict`, which finds the marks and asks here about each. The list of phrases that give a verdict is short on
purpose: an unknown phrase costs one more call to the judge, a wrong reading falsifies the result.
"""

import re
from dataclasses import dataclass

from vicuna.eval.quoting import BLOCK

# German, Spanish, French, Italian, Chinese and Japanese, as judges write captions in the language of the answers.
_FOREIGN_NOUN = (
    r"(?:end)?urteil|(?:end)?bewertung|gesamturteil|veredicto|verdetto|verdict\s+final|veredicto\s+final|puntuación|"
    r"最终判决|最終判決|最终裁决|最终结论|判决|結論|结论|裁决|最終判定|判定|评分|得分|評価"
)
NOUN = rf"(?:verdict|decision|choice|judge?ment|winner|score|rating|grade|{_FOREIGN_NOUN})"
_CONNECTIVE = (
    r"(?:(?:so|thus|hence|therefore|overall|finally|all\s+in\s+all|on\s+balance|on\s+the\s+whole|"
    r"in\s+(?:conclusion|summary|sum|short))\b[,:]?\s*)"
)
_NAMED_VERDICT = rf"(?:(?:my|the|our)\s+)?(?:(?:final|overall)\s+)*{NOUN}(?:\s+(?:is|of|goes\s+to))?"
_END = r"(?:\s+as\s+follows|,?\s+so)?[\s:=(–—-]*\Z"
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
    |possibly|would\s+(?:have|be|get)|only|alone|forms?|format|template|schema|ignor\w+|disregard\w*
    |assuming|provided\s+that|supposing|{_LOSER}|{_QUOTED})\b|n't\b|\A\W*(?:were|had|should|without)\b""",
    re.I | re.X,
)
_IN_THAT_FORM = re.compile(r"\b(?:in|as|using|following)\s+(?:\w+\s+){0,3}(?:form|format|schema)\b", re.I)
_JSON_INTRODUCTION = re.compile(
    r"\b(?:here|this\s+is|below|following|json|verdict|evaluation|judge?ment|assessment|decision|score|rating|result)\b",
    re.I,
)
# Words of another than the judge follow: an answer's, a text's, somebody's.
_REPORT = (
    r"\b(?:according\s+to|puts?\s+it|says?|said|claim\w*|writ\w+|wrote|reads?|demand\w*|ask(?:s|ed|ing)?|tells?|told|insist\w*|"
    r"ends?|ending|clos(?:es|ing)|begins?|contain\w*|includ\w+|h[oe]ld(?:s|ing)?|quot\w+|instruct\w*|tr(?:y|ies|ying)|pretend\w*|"
    r"inject\w*|forg(?:ed?|es|ing|ery)|fak(?:e|ed|es|ing)|planted|hidden|verbatim|manipulat\w*|trick\w*|cheat\w*|attempt\w*|"
    r"found|appears?|stands|states?|prints?|outputs?|returns?|repeat\w*|wants?|append\w*|insert\w*|add(?:s|ed)|final\s+words|last\s+line)\b"
)
_REPORTED = re.compile(_REPORT, re.I)
_EXPECTS_MORE = re.compile(
    rf"(?:{_REPORT}|\b(?:for|to|from|of|at|be|lines?|text|words|message|instructions?|verdict|object|json|this|following|judge|with|by|so|these)\b)"
    r"\W*\Z",
    re.I,
)
# What may introduce the line of a verdict: `In conclusion:`. Any other introduction may be a quotation's.
_CONCLUDES = re.compile(
    rf"\b(?:conclu\w*|summar\w*|overall|therefore|thus|hence|so|my|I|decision|explanation|reasoning|comparison|assessment|"
    rf"evaluation|analysis|result|rating|verdict|{_FOREIGN_NOUN})\b",
    re.I,
)
_IS_ABOUT_AN_ATTACK = re.compile(
    r"\b(?:instructions?|attack\w*|injection|excerpt|quotation|quotes?|prompt|what\s+(?:answer|assistant)\s+[AB])\b",
    re.I,
)
_HEADS_ANOTHER = re.compile(rf"\b(?:answer|assistant|response|model)s?\s+[AB]\b|{_REPORT}", re.I)
_SPEAKS_OF_ANOTHER = re.compile(
    rf"\b(?:its|given|there|was|were|from\s+[AB])\b|\b(?:(?:answer|assistant|response|model)s?'?\s+[AB]|(?:first|second|other|both|each|the)\s+(?:\w+'s\s+)?"
    rf"(?:answers?|assistants?|responses?|text|section|object|instructions?))\b|{_REPORT}",
    re.I,
)
_ENDS_CLAUSE = re.compile(r"\A.*(?:,\s*(?:so|and\s+so|therefore|thus|hence)\b|;)", re.I | re.S)
_WINNER = (
    r"(?:(?:answer|assistant|response|model)\s+)?([AB])(?:'s\s+(?:answer|response))?\s+(?:therefore\s+|clearly\s+)?"
    r"(?:wins|won|is\s+(?:\w+\s+){0,2}(?:better|best|stronger|superior|the\s+winner)\b(?!\s+(?:at|for|on|in\s+(?!every|all|general))\b))"
    r"|(?:choose|pick|prefer|select|favou?r|vote\s+for|go\s+with|winner\s+is|verdict\s+is|verdict:|winner:|(?:better|best)"
    r"(?:\s+(?:answer|one))?\s+is)\s+(?:answer\s+|assistant\s+|response\s+)?([AB])\b"
)
_NAMES_WINNER = re.compile(rf"\b(?:{_WINNER})", re.I)
_NAMES_RIGHT = re.compile(
    rf"\b(?:{_WINNER}|([AB])\s+(?:is|was|gives|has|gets|reaches|provides)\s+(?:\w+\s+)?(?:\w+\s+)?"
    r"(?:right|correct|better|best|stronger)\b)",
    re.I,
)
_FIRST = re.compile(r"\b(?:the\s+)?(?:first|former)(?:\s+(?:answer|assistant|response|one))?\b", re.I)
_SECOND = re.compile(r"\b(?:the\s+)?(?:second|latter)(?:\s+(?:answer|assistant|response|one))?\b", re.I)
_LONE_LETTER = re.compile(
    r"^[^\w\n]{0,20}(?:\w{1,20}[ \t]?:[ \t]?)?(?:(?:answer|assistant)[ \t])?([AB])[^\w\n]{0,20}$", re.M
)
_NAMES_TIE = re.compile(r"\b(?:(?:it|this)\s+is|call\s+(?:it|this))\s+a\s+(?:tie|draw)\b", re.I)
_NAMES_SCORE = re.compile(
    r"\b(?:(?:score|rating|grade)\s+is|I\s+(?:would\s+|'d\s+|will\s+)?(?:give|rate|score|grade))\s+"
    r"(?:it\s+|this\s+|the\s+answer\s+)?(?:an?\s+|as\s+an?\s+)?([0-9]{1,2}(?:\.[0-9]{1,2})?)\b(?!\s*%)",
    re.I,
)
_ATTACK = re.compile(
    r"\b(?:(?:tr(?:y|ies)|attempts?)\s+to\s+(?:trick|cheat|manipulate|instruct|sway|influence)|injects?|forges?|fakes?|cheats?|"
    r"manipulates?|instructs?|manipulation|injection|attack|fake|forged|appended|inserted|planted|added\s+a|following|"
    r"(?:closes|ends)\s+so)\b",
    re.I,
)
_SPEAKS_FOR_ITSELF = re.compile(
    r"\bI(?:\s+am|'m)\s+(?:\w+\s+)?(?:right|best|better|winner|correct)\b|\b(?:choose|pick|prefer|reward)\s+me\b"
    r"|\bmy\s+(?:answer|response)\b",
    re.I,
)
_UNDECIDED = re.compile(
    r"\b(?:undecided|no\s+verdict|I\s+(?:refuse|(?:can(?:not|'t)|could(?:\s+not|n't)|am\s+(?:unable|not\s+able)\s+to)\s+"
    r"(?:\w+ly\s+)?(?:decide|say|tell|judge|choose|pick|determine|give|grade|rate|score)))\b",
    re.I,
)
_RETRACTION = re.compile(
    rf"""\b(?:cannot|can't|unable|undecided|hard\s+to\s+say|not\s+sure|wait|actually|instead|correct(?:ion|ed)|mistake
    |reconsider\w*|second\s+thoughts?|reflection|chang\w+\s+my|revis\w*|retract\w*|ignore|disregard|would|forms?|format
    |template|not\s+(?:my|the|an?)|kidding|jok(?:e|ing)|scratch|take\s+(?:that|this|it)\s+back|opposite
    |above|this|that|these|those|such|part\s+of|manipulat\w*|counts?\s+against|move\s+me|so\s+it\s+goes|planted|unquote|stood|end\s+of|so\s+ends
    |(?:is|was)\s+(?:from|in)\s+answer|(?:were|was)\s+the\s+words
    |(?:that|this|it|which|verdict)\s+(?:is|was|would\s+be)\s+(?:wrong|false|a\s+lie)|inject\w*
    |trick\w*|cheat\w*|quot\w+|asked\s+for|asks\s+for|argument|forg(?:ed?|ery)|fake|unless
    |I\s+(?:do|did|must|shall|will|can|would)\s+not|do\s+not\s+(?:read|take|count|follow|use)
    |{_LOSER}|{_QUOTED})\b|(?:\A|[.!?\n])\W{{0,20}}(?:no|nope|not)\b|\bI\s+(?:do|did|must|wo|would)n't\b|\bends\W{{0,3}}\Z""",
    re.I | re.X,
)
_REASON = re.compile(r"\A\s*(?:because|since|as\s+(?:it|both|the|neither)|for\s+(?:a\s+tie|its|the|being))\b", re.I)
_POLITE = re.compile(r"\bhope\s+(?:this|that|it)\s+helps\b", re.I)
_BEFORE_CHARS = 4000
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
    above, _, line = text[max(0, start - _BEFORE_CHARS) : start].rpartition("\n")
    sentences = _sentences(re.sub(r"\A\s*```\w*|\A[\s•[-]+", "", line))
    sentence = sentences.pop() if sentences and not sentences[-1].endswith((".", "!", "?")) else ""
    if sentences:
        return Context(sentence, "", False, sentences[-1], True)
    lines = [one for one in above.split("\n") if not one.lstrip().startswith("```")]
    is_adjacent = bool(plain(lines[-1])) if lines else False
    lines = [one for one in lines if _has_word(one) or one.strip() == BLOCK]
    if not lines or lines[-1].strip() == BLOCK:
        return Context(sentence, "", False, "", False)
    last = plain(lines[-1])
    is_heading = bool(_HEADING.match(lines[-1]))
    is_unfinished = not _FINISHED_LINE.search(lines[-1].rstrip(" *_`")) and (
        is_adjacent
        or bool(_EXPECTS_MORE.search(last) and _REPORTED.search(last))
        or bool(_IS_ABOUT_AN_ATTACK.search(last))
    )
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
    if _is_attack(context.sentence_before, value):
        return False
    if context.sentence:
        above = context.line_above
        is_open = not context.is_heading and _UNFINISHED_LINE.search(above) and not _CONCLUDES.search(above)
        is_another = not context.is_heading and _SPEAKS_OF_ANOTHER.search(above)
        if above and (is_open or is_another) and not _gives_verdict(above, value):
            return False
        return _gives_verdict(context.sentence, value) and not _DOUBT.search(above) and not _UNDECIDED.search(above)
    if context.line_above:
        if context.is_heading:
            return not _DOUBT.search(context.line_above) and not _HEADS_ANOTHER.search(context.line_above)
        return _gives_verdict(context.line_above, value)
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


def may_retract(after: str, value: object = None) -> bool:
    """Whether the words after a verdict may retract it, contradict it, or continue its sentence (but for a reason)."""
    if "?" in after[:2]:
        return True
    after = _POLITE.sub("", plain(after))
    goes_on = after[:1].islower() and not _REASON.match(after)
    return goes_on or bool(_RETRACTION.search(after)) or _contradicts(after, value, _NAMES_RIGHT)


def contradicts(words: str, value: object) -> bool:
    """Whether the words give another verdict than `value` and not that one as well, or tell of an attack for it."""
    return _contradicts(words, value, _NAMES_WINNER) or _is_attack(words, value)


def is_end_of_thoughts(text: str) -> bool:
    """Whether thoughts whose beginning is not marked may end here: after a sentence or a line, and not in a report."""
    last = text[-_BEFORE_CHARS:]
    line = last.rstrip().rpartition("\n")[2]
    is_boundary = not last.strip() or last.rstrip(" ")[-1] in ".!?\n"
    is_open = re.search(r"\{\s*\"(?:explanation|verdict|score)\"", text) or text.count('"') % 2 or text.count("```") % 2
    return (
        is_boundary
        and not is_open
        and not re.search(rf"{_REPORT}.*:", "\n".join((last[:-1].rpartition("\n")[0][-300:], line)), re.I)
    )


def plain(words: str) -> str:
    """Words without Markdown's marks, with straight apostrophes."""
    return re.sub(r"[*_`#\"“”]+", "", words).replace("’", "'").strip()


def _gives_verdict(words: str, value: object) -> bool:
    words = words[-300:]
    match = _VERDICT_GIVEN.search(words)
    if match is None or match["letter"] not in (None, value) or _DOUBT.search(words):
        return False
    before = _ENDS_CLAUSE.sub("", words[: match.start() + 1])
    is_said_by_another = before.endswith(":") and not _CONCLUDES.search(before)
    return not _REPORTED.search(before) and not is_said_by_another


def _contradicts(words: str, value: object, names: re.Pattern[str]) -> bool:
    named: set[object]
    if isinstance(value, str):
        named = {letter.upper() for match in names.findall(words) for letter in match if letter}
        if names is _NAMES_RIGHT:
            words = _FIRST.sub("A", _SECOND.sub("B", words))
            mentioned = set(re.findall(r"\b[AB]\b", words))
            if value in ("A", "B") and mentioned and value not in mentioned:
                return True
            named |= set(_LONE_LETTER.findall(words))
        if _NAMES_TIE.search(words):
            named.add("tie")
    else:
        named = {float(number) for number in _NAMES_SCORE.findall(words)} if isinstance(value, float) else set()
    return bool(named) and value not in named


def _is_attack(words: str, value: object) -> bool:
    """Whether the last words tell that the preferred answer asks for its verdict, or are such an answer's own."""
    last_clause = re.split(r"[;,]", words)[-1]
    is_told = _ATTACK.search(last_clause) and (_names(last_clause, value) or not isinstance(value, str))
    return bool(is_told or _SPEAKS_FOR_ITSELF.search(words))


def _names(words: str, value: object) -> bool:
    """Whether the words speak of the answer that the verdict prefers."""
    number = {"A": "first", "B": "second"}.get(str(value))
    return number is not None and bool(re.search(rf"\b(?:{value}|{number}|{number.capitalize()})\b", words))


def _sentences(line: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.!?])[)\]]*\s+", plain(line)) if _has_word(one)]


def _has_word(line: str) -> bool:
    return bool(re.search(r"[^\W_]", line))
