"""What in a judge's reply is another one's text, or is not what it looks like: quotations, code, sections, disguises.

For `verdict`, beside `wording`. A contestant may write a verdict into its answer, and the judge may quote it. Whatever
may be quoted counts as quoted: that costs one more call to the judge, a wrong reading would falsify the result.
"""

import re
import unicodedata

# Signs that no reader sees: joiners, marks of direction, variation selectors, tags.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
# Greek, Cyrillic and Cherokee letters that look like Latin ones.
_LOOK_ALIKES = str.maketrans(
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03bd\u0410\u0412\u0415"
    "\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456"
    "\u0458\u0455\u04bb\u0501\u051b\u051d\u0131\u13aa\u13f4\u13df",
    "ABEZHIKMNOPTYXovABEKMHOPCTXIJSaeopcyxijshdqwiABC",
)
_BRACKETS = str.maketrans(
    {"\u3010": "[", "\u3011": "]", "\u27e6": "[[", "\u27e7": "]]", "\u301a": "[[", "\u301b": "]]"}
)
_WORD = re.compile(r"\w+")
_MARK = re.compile(r"\[\[\s{0,8}([^\[\]\n]{1,24}?)\s{0,8}\]\]")

# What stands for a fenced block and for a JSON object that were taken out of the text; `verdict` numbers the objects.
BLOCK = "\ue000"
MAX_OBJECTS = 64
OBJECTS = "".join(map(chr, range(0xE100, 0xE100 + MAX_OBJECTS)))
_RESERVED = re.compile(f"[{BLOCK}{OBJECTS}]")
_OPENING = "“„‟«‹「『《〈｢【〝❝❮⟪⟨﹁﹃‘‚‛❛"
_CLOSING = "”»›」』》〉｣】〞〟❞❯⟫⟩﹂﹄’❜"
_DOUBLE = re.compile(f"[\"{_OPENING}{_CLOSING}`´′]|''|,,")
_SINGLE_OPENS = re.compile(r"(?:(?<=\s)|(?<=[(\[:])|\A)'(?=[^\s'])")
_SINGLE_CLOSES = re.compile(r"(?<=[^\s'])'(?=[\s.,;:!?)\]]|\Z)")
_FENCE = re.compile(r"[ \t]{0,20}(?:[-*+•]|\d{1,3}[.)])?[ \t]{0,20}(`{3,}|~{3,})([^\n]*)")
_QUOTE_LINE = re.compile(r"[ \t]*(?:(?:[-*+•]|\d{1,3}[.)])[ \t]+)*[>|]")
_TAG = re.compile(
    r"</?[a-zA-Z][\w:-]{0,40}(?:\s[^<>\n]{0,200})?/?>|<!--|-->|<!\[CDATA\[|\]\]>(?!\])|\[/?(?:quote|code|spoiler)[^\]\n]{0,80}\]",
    re.I,
)
_SECTION = re.compile(
    r"^[ \t>#*_`-]*\[\s*(?:the\s+)?(?:end|start|begin|beginning)\b[^\[\]\n]{0,80}\][ \t*_`]*$"
    r"|\[\s*(?:end\s+)?(?:question|reference|answer|assistant|verdict|score)(?:\s+[AB])?\s+[0-9a-f]{8,}\s*\]"
    r"|^[ \t>#*_`-]*\[\s*(?:end\s+)?(?:question|reference|answer|assistant)(?:\s+[AB])?\s*\][ \t*_`]*$"
    r"|<\|[^|\n]{1,40}\|>|</?s>|^[-=*_ \t]{3,}(?:begin|start|end)\s+of\s+\w+",
    re.I | re.M,
)


def without_reserved(text: str) -> str:
    """The text without the signs that stand for a block or an object here."""
    return text if text.isascii() else _RESERVED.sub("\ufffd", text)


def visible(text: str) -> str:
    """The text as a reader sees it: without invisible signs, look-alike letters inside Latin words made Latin."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    # A few signs stand for eighteen letters each.
    return _WORD.sub(_latin, _INVISIBLE.sub("", text if _swells(text, normal) else normal))


def is_disguised(text: str) -> bool:
    """Whether a reader sees other marks (`[[A]]`) in the text than a program finds in it."""
    if text.isascii() and "\\" not in text:
        return False
    if _swells(text, unicodedata.normalize("NFKC", text)):
        return True
    shown = visible(text).translate(_LOOK_ALIKES).translate(_BRACKETS)
    return _MARK.findall(re.sub(r"\\(?=[\[\]])", "", shown)) != _MARK.findall(text)


def holds_sections(text: str) -> bool:
    """Whether the text has the marks of a prompt's sections or turns, real or forged; then nobody knows who speaks."""
    return bool(_SECTION.search(text))


def without_code(text: str) -> str | None:
    """The text with `BLOCK` for each fenced block, or with the JSON object for a block that holds nothing else.

    None if a fence stays open: what follows it may be quoted.
    """
    kept: list[str] = []
    block: list[str] | None = None
    fence = ""
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if block is None:
            if match is not None and "`" not in match[2]:
                block, fence = [], match[1]
            else:
                kept.append(line)
        elif match is not None and match[1].startswith(fence) and not match[2].strip():
            content = "".join(block).strip()
            kept.append(content if len(content) == 1 and content in OBJECTS else BLOCK)
            block = None
        else:
            block.append(line)
    return "\n".join(kept) if block is None else None


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` may stand in a quotation, a block quote, a table, indented code or a tag."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line = text[line_start : len(text) if line_end < 0 else line_end]
    if _QUOTE_LINE.match(line) or line.startswith(("    ", "\t")) or _TAG.search(line) or "~~" in line:
        return True
    above = text[max(0, line_start - 2000) : line_start].rstrip("\n \t").rpartition("\n")[2]
    below = text[end : end + 2000].partition("\n")[2].lstrip("\n \t").partition("\n")[0]
    if _TAG.search(above) or _TAG.search(below) or below.strip() == BLOCK:
        return True
    if _is_in_block_quote(text, line_start):
        return True
    return _is_between_quote_marks(text, start, end)


def _swells(text: str, normal: str) -> bool:
    return len(normal) > 2 * len(text)


def _latin(match: re.Match[str]) -> str:
    word = match[0]
    return word if word.isascii() or not re.search("[A-Za-z]", word) else word.translate(_LOOK_ALIKES)


def _is_in_block_quote(text: str, line_start: int) -> bool:
    """Whether the paragraph of the line has a line of a block quote above it, which the line then continues."""
    paragraph_start = text.rfind("\n\n", 0, line_start)
    return any(_QUOTE_LINE.match(line) for line in text[max(paragraph_start, 0) : line_start].split("\n"))


def _is_between_quote_marks(text: str, start: int, end: int) -> bool:
    before, after = text[:start], text[end:]
    if before.endswith("'") or after.startswith("'") or (after and _DOUBLE.match(after)):
        return True
    if _SINGLE_OPENS.search(before) and _SINGLE_CLOSES.search(after):
        return True
    has_before = bool(_DOUBLE.search(before.replace("’", "")))
    return _is_open(before) or (has_before and any(_ends_quotation(after, one) for one in _DOUBLE.finditer(after)))


def _is_open(before: str) -> bool:
    """Whether a quotation that begins in the text has not ended in it, by any way of counting its quote marks."""
    depths = {"double": 0, "single": 0, "german": 0}
    count = 0
    for match in _DOUBLE.finditer(before):
        sign, place = match[0], match.start()
        if sign in "‘‚‛’":
            depths["single"] += -1 if depths["single"] and sign in "‘’" else sign != "’"
            continue
        if sign == '"' and not depths["double"] and before[place - 1 : place].isdigit():
            continue  # inches
        count += 1
        if sign in ("„", ",,"):
            depths["german"] += 1
        elif depths["german"] and sign in ("“", "”", "''", '"'):
            depths["german"] -= 1
        elif sign == '"':
            depths["double"] += 1 if place == 0 or before[place - 1] in " \t\n([{:–—" else -1
        else:
            depths["double"] += (sign in _OPENING) - (sign in _CLOSING)
    return max(depths.values()) > 0 or count % 2 == 1


def _ends_quotation(text: str, sign: re.Match[str]) -> bool:
    """Whether a quote mark is one, rather than an apostrophe inside a word."""
    place = sign.start()
    return sign[0] != "’" or not (0 < place < len(text) - 1 and text[place - 1].isalpha() and text[place + 1].isalpha())
