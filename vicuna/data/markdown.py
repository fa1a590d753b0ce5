"""The pieces of Markdown that the walker in `html` writes: code, tables, lists, escapes.

Escapes are written only where a reader of Markdown would otherwise see markup that the page did not have: a model
should learn `snake_case` and `2 * 3`, not `snake\\_case` and `2 \\* 3`.
"""

import re
from collections.abc import Sequence

# Delimiter runs that a Markdown reader would pair up (CommonMark 0.31, section 6.2: left- and right-flanking runs).
# An opener and a closer are looked for apart: one pattern for the pair takes quadratic time on a line of openers.
STAR_OPENER, STAR_CLOSER = re.compile(r"\*+(?=[^\s*])"), re.compile(r"[^\s*\\]\*")
STRIKE_OPENER, STRIKE_CLOSER = re.compile(r"~~(?=[^\s~])"), re.compile(r"[^\s~]~~")
UNDERSCORE_CLOSER = re.compile(r"[^\s_\\]_+(?!\w)")
UNDERSCORE_PAIR = re.compile(r"(?<![\w_])_+(?=[^\s_])[^\n]*?[^\s_\\]_+(?!\w)")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)[\s\S]+?(?<!`)\1(?!`)")
LINK = re.compile(r"\[(?=[^\[\]\n]*\]\()")
BACKSLASH = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
# What begins a block when it stands at the start of a line (sections 4 and 5).
BLOCK_START = re.compile(
    r"(?P<mark>#{1,6}(?=\s|$)|[-+*](?=\s|$)|>|\d{1,9}(?P<dot>[.)])(?=\s|$)|```|~~~|={2,}\s*$|-{3,}\s*$)"
)
RULE_LINE = re.compile(r"([-*_])[ \t]*(?:\1[ \t]*){2,}$")


def escape_text(text: str) -> str:
    """Literal text as Markdown that reads the same; the start of a line is `escape_line_start`'s business."""
    if "\\" in text:
        text = BACKSLASH.sub(r"\\\\", text)
    if "`" in text and CODE_SPAN.search(text):
        text = text.replace("`", "\\`")
    if "*" in text and _has_pair(text, STAR_OPENER, STAR_CLOSER):
        text = text.replace("*", "\\*")
    if "_" in text:
        text = "\n".join(_escape_underscores(line) for line in text.split("\n"))
    if "~~" in text and _has_pair(text, STRIKE_OPENER, STRIKE_CLOSER):
        text = text.replace("~~", "\\~\\~")
    if "](" in text:
        text = LINK.sub(r"\\[", text)
    return text


def _has_pair(text: str, opener: re.Pattern[str], closer: re.Pattern[str]) -> bool:
    """Whether some line has an opener with a closer behind it."""
    lines = text.split("\n")
    return any((first := opener.search(line)) and closer.search(line, first.end()) for line in lines)


def _escape_underscores(line: str) -> str:
    """Underscores that pair up are escaped; those of `snake_case` stay."""
    end = max((match.end() for match in UNDERSCORE_CLOSER.finditer(line)), default=0)
    # Up to the last closer every opener finds one, so the search below stays linear.
    return UNDERSCORE_PAIR.sub(lambda match: match[0].replace("_", "\\_"), line[:end]) + line[end:]


def escape_line_start(line: str) -> str:
    """A line of a paragraph that must not begin a list, a heading, a quotation, a fence or a rule."""
    match = BLOCK_START.match(line)
    if match is None:
        return "\\" + line if RULE_LINE.match(line) else line
    if match["dot"]:
        at = match.start("dot")
        return f"{line[:at]}\\{line[at:]}"
    return "\\" + line


def begins_block(line: str) -> bool:
    """Whether a Markdown reader would take this line for more than a paragraph's next line."""
    return BLOCK_START.match(line) is not None or RULE_LINE.match(line) is not None


def code_span(code: str) -> str:
    """Inline code; the delimiter is longer than any run of backticks inside."""
    code = re.sub(r"\s*\n\s*", " ", code)
    if not code.strip():
        return code
    runs = {len(run) for run in re.findall("`+", code)}
    ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    pad = " " if code.startswith("`") or code.endswith("`") or (code[0] == " " == code[-1]) else ""
    return f"{ticks}{pad}{code}{pad}{ticks}"


def code_fence(code: str, language: str) -> str:
    """A fenced block that holds `code` byte for byte; the fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    end = "" if code.endswith("\n") or not code else "\n"
    return f"{fence}{language}\n{code}{end}{fence}"


def emphasis(content: str, mark: str) -> str:
    """`content` between marks, with the white space at its ends outside of them."""
    inner = content.strip()
    if not inner:
        return content
    start = content[: len(content) - len(content.lstrip())]
    end = content[len(content.rstrip()) :]
    return f"{start}{mark}{inner}{mark}{end}"


def link(text: str, target: str, title: str | None, *, links_itself: bool) -> str:
    """A link. If the text is the address, the address in angle brackets, or bare where the page links bare ones."""
    if not target or not text.strip():
        return text
    plain = text.replace("\\", "")
    if not title and (target == plain or target == f"mailto:{plain}"):
        if not re.match(r"https?://|mailto:|[\w.+-]+@", plain):
            return f"[{text}]({target})"
        return plain if links_itself or re.search(r"[\s<>]", plain) else f"<{plain}>"
    if re.search(r"[\s()<>]", target):
        target = "<" + target.replace("<", "%3C").replace(">", "%3E").replace("\n", "%0A") + ">"
    shown = f' "{title}"'.replace("\n", " ") if title else ""
    return f"[{text}]({target}{shown})"


def indent(text: str, first: str, rest: str) -> str:
    """`text` with `first` before its first line and `rest` before each other line that is not empty."""
    head, *lines = text.split("\n")
    return "\n".join([first + head, *(rest + line if line else "" for line in lines)])


def quote(text: str) -> str:
    """A quotation."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def table(rows: Sequence[Sequence[str]], alignments: Sequence[str]) -> str:
    """A table; the first row is the head. Cells are one line each and have their `|` escaped already."""
    width = max(len(row) for row in rows)
    marks = {"left": ":---", "right": "---:", "center": ":---:"}
    rule = [marks.get(alignment, "---") for alignment in [*alignments, *[""] * width][:width]]
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    lines = [full[0], rule, *full[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
