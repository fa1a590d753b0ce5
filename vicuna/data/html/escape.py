"""Escapes literal text in Markdown: a backslash only where a character would be read as Markdown syntax.

A model should learn `snake_case` and `2 * 3`, not `snake\\_case` and `2 \\* 3`; and whether a star is syntax depends on
its whole paragraph. So `inline` first writes a paragraph as one string: literal text as it is, and Markdown syntax,
code and formulas *hidden*, each of their ASCII characters as a lone surrogate, which no page can contain. Then the
literal characters that would be read as syntax are found and escaped, and the hidden ones are shown again.

Section numbers are those of CommonMark 0.31.
"""

import itertools
import re
import unicodedata
from collections import Counter
from functools import lru_cache
from html.entities import html5

from vicuna.data.html.dom import one_line

HIDE = {code: 0xDC00 + code for code in range(128)}
SHOW = {0xDC00 + code: chr(code) for code in range(128)}
HIDDEN = re.compile("[\udc00-\udc7f]+")
BREAK = "\udc20\udc20\n"  # a hard line break: two spaces, hidden, before the end of the line

SPECIAL = re.compile(r"[\\`*_~\]<&!]")
DELIMITER_RUN = re.compile(r"\*+|_+|~{2,}")
BACKTICKS = re.compile("`+")
FENCE = re.compile(r"^[ \t]*`{3}", re.MULTILINE)
BRACKET = re.compile(r"[\[\]]")
LINK_END = re.compile(r"\](?=\()")
CLOSING_HASHES = re.compile(r"(^|[ \t])(#+)$")
BACKSLASH = re.compile(r"\\(?=[!-/:-@\[-`{-~\n]|  \n)")
ENTITY = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|([A-Za-z][A-Za-z0-9]{1,40}));")
MARKS = r"\\`*~\[\]&!_\udc00-\udc7f"
ATTRIBUTE = (
    r"\s++[A-Za-z:][A-Za-z0-9.:-]*+"
    rf"""(?:\s*+=\s*+(?:'[^'{MARKS}]*+'|"[^"{MARKS}]*+"|[^\s"'=<>{MARKS}]++))?+"""
)
# A tag that may stay as it is (6.6): nothing in it needs an escape, which would be shown there.
PLAIN_TAG = re.compile(rf"<(?!br\b)(?:[A-Za-z][A-Za-z0-9-]*+(?:{ATTRIBUTE})*+\s*+/?|/[A-Za-z][A-Za-z0-9-]*+\s*+)>")
# What may begin any other tag, or a link in angle brackets (6.5); and what begins a block of HTML (4.6).
TAG_START = re.compile(r"<(?=[A-Za-z/?!])")
TAG_LINE = re.compile(
    r"""<(?!br\b)(?:[A-Za-z][A-Za-z0-9-]*+(?:\s++[A-Za-z_:][\w.:-]*+(?:\s*+=\s*+(?:'[^']*+'|"[^"]*+"|[^\s"'=<>`]++))?+)*+\s*+/?"""
    r"""|/[A-Za-z][A-Za-z0-9-]*+\s*+)>[ \t]*$"""
)
VERBATIM = re.compile(r"<(?:(?:script|pre|style|textarea)(?=[\s>]|$)|!--|\?|![A-Za-z]|!\[CDATA\[)", re.IGNORECASE)
VERBATIM_END = re.compile(r"</(?:script|pre|style|textarea)>|-->", re.IGNORECASE)
HTML_BLOCK = re.compile(
    r"<(?:(?:script|pre|style|textarea)(?=[\s>]|$)|!--|\?|![A-Za-z]|!\[CDATA\[|/?(?:address|article|aside|base|basefont|"
    r"blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|footer|"
    r"form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|menuitem|nav|noframes|ol|optgroup|"
    r"option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|track|ul)(?=\s|/?>|$))",
    re.IGNORECASE,
)
# What begins a block at the start of a paragraph (4.1, 4.2, 4.5, 4.7, 5.1, 5.2); the named part is escaped.
BLOCK_START = re.compile(
    r"#{1,6}(?=\s|$)|[-+*](?=\s|$)|>|\d{1,9}(?P<dot>[.)])(?=\s|$)|~~~|([-*_])[ \t]*(?:\2[ \t]*){2,}$|"
    r"\[[^\[\]]{1,999}(?P<definition>\]):"
)
# What ends a paragraph at the start of a later line, or makes a heading or a table of it (4.3, and GFM 4.10).
INTERRUPTION = re.compile(
    r"#{1,6}(?=\s|$)|[-+*](?=\s|$)|>|0*1(?P<dot>[.)])(?=\s|$)|~~~|([-*_])[ \t]*(?:\2[ \t]*){2,}$|"
    r"=+[ \t]*$|(?=[-:| \t]*-)[-:| \t]+$"
)


@lru_cache(maxsize=1024)
def hide(text: str) -> str:
    """Markdown syntax, hidden: none of its characters will be escaped or taken for literal text."""
    return text.translate(HIDE)


def show(text: str) -> str:
    """The text with hidden characters shown."""
    return text if text.isascii() else HIDDEN.sub(lambda found: found[0].translate(SHOW), text)


def escape_paragraph(text: str, *, may_be_html: bool = True) -> str:
    """A paragraph with its literal text escaped and its syntax shown; "" if it is empty.

    Args:
        may_be_html: whether raw HTML may stay as it is; a reader then sees a block of its own.
    """
    if may_be_html and "<" in text and (raw := _html_block(text)) is not None:
        return raw
    return show(_escape_lines(_escape_marks(text)))


def escape_heading(text: str) -> str:
    """`escape_paragraph` for a heading, which has one line and may not end in `#` (4.2)."""
    line = _escape_marks(" ".join(part.strip("\udc20 \t") for part in text.split("\n")).strip())
    return one_line(show(CLOSING_HASHES.sub("\\1\udc5c\\2", line)))


def escape_cell(text: str) -> str:
    """`escape_paragraph` for a table's cell: one line, line breaks as `<br>`, each `|` escaped (GFM 4.10)."""
    line = one_line(_escape_marks(text).replace(BREAK, "<br>"))
    return one_line(show(line.strip("\udc20 \t"))).replace("|", "\\|")


def escape_words(text: str) -> str:
    """`escape_paragraph` for an image's description; all backticks, because code outside may begin or end with one."""
    words = one_line(text).replace("`", hide("\\`"))
    return show(_escape_marks(_escape_brackets(words) + hide("]")))[:-1]


def escape_reference(text: str) -> str:
    """An address or title with its backslashes and entities escaped (2.4, 2.5)."""
    text = BACKSLASH.sub(r"\\\\", text) if "\\" in text else text
    return ENTITY.sub(r"\\\g<0>", text) if "&" in text else text


def hide_brackets(text: str) -> str:
    """A link's text with brackets escaped if they are not balanced, which would end it too early (6.3)."""
    return _escape_brackets(text)


def _escape_brackets(text: str) -> str:
    depth = 0
    for found in BRACKET.finditer(text):
        depth += 1 if found[0] == "[" else -1
        if depth < 0:
            break
    is_safe = depth == 0 and not LINK_END.search(text)
    return text if is_safe else BRACKET.sub(lambda found: hide(f"\\{found[0]}"), text)


def _html_block(text: str) -> str | None:
    """The text as a block of raw HTML, in which nothing is escaped (4.6); None if it would not be read as one."""
    text = text.strip(" \t\n")
    if HIDDEN.search(text):
        return None
    if VERBATIM.match(text):
        end = VERBATIM_END.search(text)
        return text if end and "\n" not in text[end.end() :] else None
    first, _, _ = text.partition("\n")
    if not HTML_BLOCK.match(text) and not TAG_LINE.match(first):
        return None
    return "\n".join(line for line in text.split("\n") if line.strip(" \t"))


def _escape_marks(text: str) -> str:
    """A paragraph with literal characters escaped that would be read as inline syntax."""
    if not SPECIAL.search(text):
        return text
    plain = show(text)
    places: set[int] = set()
    tag_spans = _tags(text, places) if "<" in text else []
    if "&" in text:
        places.update(found.start() for found in ENTITY.finditer(plain) if found[1] is None or f"{found[1]};" in html5)
    if "`" in text:
        _backticks(text, plain, places)
    if "*" in text or "_" in text or "~~" in text:
        _delimiters(text, plain, tag_spans, places)
    if "]" in text and (first := plain.find("[")) >= 0:
        places.update(found.start() for found in LINK_END.finditer(plain, first))
    if "!" in text:
        places.update(found.start() for found in re.finditer("!(?=\udc5b)", text))
    if "\\" in text:
        places.update(found.start() for found in BACKSLASH.finditer(plain))
    return _with_backslashes(text, {place for place in places if text[place] < "\udc00" or text[place] > "\udc7f"})


def _with_backslashes(text: str, places: set[int]) -> str:
    if not places:
        return text
    cuts = [0, *sorted(places), len(text)]
    return "\udc5c".join(text[begin:end] for begin, end in itertools.pairwise(cuts))


def _tags(text: str, places: set[int]) -> list[tuple[int, int]]:
    """Add to `places` what would be read as a tag or a link; return the spans of tags that may stay as they are."""
    tag_spans: list[tuple[int, int]] = []
    end, last = 0, show(text).rfind(">")
    for found in TAG_START.finditer(text):
        begin = found.start()
        if begin < end:
            continue
        if tag := PLAIN_TAG.match(text, begin):
            end = tag.end()
            tag_spans.append((begin, end))
        elif begin < last:
            places.add(begin)
    return tag_spans


def _backticks(text: str, plain: str, places: set[int]) -> None:
    """Add to `places` all literal backticks, if a run of them could begin or end code.

    A run of a length that no other has cannot. All, because a run with backslashes between its backticks still ends
    code that begins with a single one (6.1).
    """
    runs = [found.span() for found in BACKTICKS.finditer(plain)]
    lengths = Counter(end - begin for begin, end in runs)
    for begin, end in runs:
        literal = text.count("`", begin, end)
        if literal and (literal < end - begin or lengths[end - begin] > 1 or FENCE.search(text)):
            places.update(found.start() for found in re.finditer("`", text))
            return


def _delimiters(text: str, plain: str, tag_spans: list[tuple[int, int]], places: set[int]) -> None:
    """Add to `places` delimiter runs that could open emphasis before a closer, or close it after an opener."""
    runs: dict[str, list[tuple[int, int, bool, bool]]] = {}
    tag = iter([*tag_spans, (len(text), len(text))])
    begin_tag, end_tag = next(tag)
    for found in DELIMITER_RUN.finditer(plain):
        begin, end = found.span()
        while begin >= end_tag and end_tag < len(text):
            begin_tag, end_tag = next(tag)
        if begin < begin_tag:
            is_mixed = 0 < text.count(plain[begin], begin, end) < end - begin  # it will be two runs
            opens, closes = (True, True) if is_mixed else _flanking(plain, begin, end)
            runs.setdefault(plain[begin], []).append((begin, end, opens, closes))
    for character, several in runs.items():
        first_opener = min((begin for begin, _, opens, _ in several if opens), default=len(text))
        last_closer = max((begin for begin, _, _, closes in several if closes), default=-1)
        for begin, end, opens, closes in several:
            literal = [place for place in range(begin, end) if text[place] == character]
            if literal and (
                len(literal) < end - begin or (opens and last_closer > begin) or (closes and first_opener < begin)
            ):
                places.update(literal)


def _flanking(plain: str, begin: int, end: int) -> tuple[bool, bool]:
    """Whether a run may open, and whether it may close emphasis (6.2)."""
    before = _kind(plain[begin - 1]) if begin else "space"
    after = _kind(plain[end]) if end < len(plain) else "space"
    # Symbols are punctuation since CommonMark 0.31, not before; here they count as what allows more emphasis.
    is_left = after != "space" and (after != "punctuation" or before != "letter")
    is_right = before != "space" and (before != "punctuation" or after != "letter")
    if plain[begin] == "_" and is_left and is_right:
        return before != "letter", after != "letter"
    return is_left, is_right


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Zs" or character in "\t\n\f\r":
        return "space"
    return "punctuation" if category[0] == "P" else "symbol" if category[0] == "S" else "letter"


def _escape_lines(text: str) -> str:
    """A paragraph's lines, none of them indented, empty or read as the start of a block; hard breaks stay."""
    text = text.strip(" \t\n")
    if "\n" not in text:
        return _escape_start(text.rstrip("\udc20"), BLOCK_START)
    lines = [line for raw in text.split("\n") if (line := _line(raw)).strip("\udc20")]
    lines = [_escape_start(line, INTERRUPTION if number else BLOCK_START) for number, line in enumerate(lines)]
    return "\n".join(lines).rstrip("\udc20")


def _line(raw: str) -> str:
    """A line without the space around it; a hard break at its end stays."""
    line = raw.strip(" \t")
    return line[: -len(BREAK) + 1].rstrip(" \t") + BREAK[:-1] if line.endswith(BREAK[:-1]) else line


def _escape_start(line: str, pattern: re.Pattern[str]) -> str:
    first = line[:1]
    if not first or (first.isalpha() and first.isascii()):
        return line
    if first == "<" and (HTML_BLOCK.match(line) or TAG_LINE.match(line)):
        return f"\udc5c{line}"
    found = pattern.match(line.rstrip("\udc20"))
    if found is None:
        return line
    place = next((found.start(name) for name in ("dot", "definition") if found.groupdict().get(name)), 0)
    return _with_backslashes(line, set(range(3)) if found[0] == "~~~" else {place})
