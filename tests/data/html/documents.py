"""Markdown documents for property tests: every construct of an answer, in every other one, with hostile text between.

Sources are written here as a model would write them, with no care for what a mark means where it lands: whatever a
Markdown reader makes of them is a page that must come back.
"""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

WORDS = (
    *("word", "The", "end.", "a", "I", "snake_case_name", "__init__", "_x_", "x_", "_y", "*", "**", "***", "*a", "b*"),
    *(
        "2*3",
        "a*b*c",
        "`",
        "``",
        "`x",
        "y`",
        "[",
        "]",
        "[a]",
        "[b](",
        "](c)",
        "(d)",
        "![",
        "!",
        "[^1]",
        "[^1]:",
        "[x]:",
    ),
    *("|", "a|b", "||", "<", ">", "<b>", "</b>", "<div>", "vector<int>", "a<b", "&"),
    *(
        "&amp;",
        "&lt;",
        "&copy",
        "&#42;",
        "\\",
        "\\\\",
        "\\*",
        "\\_",
        "\\`",
        "\\<br>",
        "\\&amp;",
        "C:\\new\\table",
        "1.",
        "1)",
        "23.",
        "1986.",
    ),
    *("#", "##", "#tag", "C#", "+", "-", "--", "---", "=", "===", "~", "~~", "~~~", "~5", "a~~b", "```", "$x$", "$5"),
    *(
        "😀",
        "👩‍💻",
        "日本語",
        "中文。",
        "**中文**",
        "é",
        "“quote”",
        "don't",
        "…",
        "—",
        "\u00a0",
        "\u200b",
        "\u3000",
        "ﬁ",
    ),
    *(
        "\\\\(",
        "\\\\)",
        "\\\\[",
        "\\\\]",
        "{x}",
        "@user",
        "user@example.org",
        "https://example.org/a_b?c=1&d=*",
        "www.example.org",
    ),
    *(
        "Copy code",
        "1 / 3",
        "Copy12 chars / 3 words",
        "a\tb",
        "a  b",
        ":",
        ":-:",
        "x^2",
        "% 5",
        '"q"',
        "'s",
        "\\",
    ),
    *("5 * 3 * 2", "_", "__", "*_*", "**a", "a**", ".*", "*.", "(*)", '"*"', "-x", "->", "=>", "/* c */", "#!/bin/sh"),
)
LABELS = (
    "",
    "",
    "python",
    "c++",
    "C#",
    "objective-c",
    "f90",
    "Python",
    "text",
    "plaintext",
    "sh-session",
    "html",
    "1c",
    "copy",
)
CODE_LINES = (
    *(
        "",
        "",
        "x = 1",
        "    indented",
        "\ttab",
        "trailing  ",
        "\t",
        "  ",
        "```",
        "````",
        "~~~",
        "```python",
        "Copy code",
        "1 / 3",
    ),
    *(
        '<div class="a">&amp;</div>',
        "a < b && c > d",
        "# comment",
        "- item",
        "| a | b |",
        "*x* _y_ \\",
        "日本語 😀",
        "</code></pre>",
    ),
    *(
        "def f(x): return x",
        "\\( x \\)",
        "`tick`",
        "Copy12 chars / 3 words",
        "import os",
        "<br>",
        "<!-- c -->",
        "\u00a0",
        "$ ls",
    ),
)
FORMULAS = (
    r"x",
    r"a_1^2 < b",
    r"\frac{1}{2}",
    r"\sum_{i=1}^{n} x_i \\ y",
    r"*a* & b",
    r"\text{a \& b}",
    r"x > 0",
    r"\{1\}",
    r"|x|",
)
FORMULA_LINES = (
    r"\begin{aligned}",
    r"a &= b \\",
    r"\end{aligned}",
    "x",
    "- y",
    "# z",
    "1. w",
    "> v",
    "+ u",
    "= t",
    "| s |",
)
TARGETS = (
    *(
        "https://example.org",
        "https://example.org/a_b_c?d=1&e=2#f",
        "/a(b)c",
        "<a b>",
        "mailto:a@b.org",
        "a\\)b",
        "#x",
    ),
    *(
        "https://en.wikipedia.org/wiki/A_(b)",
        "https://example.org/*x*",
        "a%20b",
        "é",
        "a&b;c",
    ),
)
TITLES = ("", "", ' "t"', ' "a \\"b\\""', " 'c \"d\"'", ' "*e*"', ' "f (g)"', ' "a\\\\b"', ' "&amp;amp;"')


def words() -> SearchStrategy[str]:
    """Literal text, joined with and without spaces."""
    joined = st.tuples(st.sampled_from(WORDS), st.sampled_from((" ", " ", " ", "", "  "))).map("".join)
    return st.lists(joined, min_size=1, max_size=6).map(lambda parts: "".join(parts).strip(" ") or "x")


def code_spans() -> SearchStrategy[str]:
    """Inline code of one line."""
    inner = st.sampled_from(
        ("x", "a_b", "a|b", "a\\|b", "``", "`", " `a` ", "**", "<b>", "\\", "&amp;", " ", "a  b", "\\( x \\)", "1.")
    )
    return st.tuples(st.sampled_from(("`", "``", "```")), inner).map(lambda pair: f"{pair[0]}{pair[1]}{pair[0]}")


def inline(depth: int = 2) -> SearchStrategy[str]:
    """A line of inline Markdown."""
    pieces = [words(), words(), words(), code_spans(), st.sampled_from(FORMULAS).map(lambda tex: f"\\( {tex} \\)")]
    if depth:
        inner = inline(depth - 1)
        pieces.append(
            st.tuples(st.sampled_from(("*", "**", "_", "__", "***", "~~")), inner).map(lambda p: p[0] + p[1] + p[0])
        )
        pieces.append(
            st.tuples(st.sampled_from(("", "", "!")), inner, st.sampled_from(TARGETS), st.sampled_from(TITLES)).map(
                lambda p: f"{p[0]}[{p[1]}]({p[2]}{p[3]})"
            )
        )
    joined = st.tuples(st.one_of(pieces), st.sampled_from((" ", " ", "", ", "))).map("".join)
    return st.lists(joined, min_size=1, max_size=4).map(lambda parts: "".join(parts).strip(" ,") or "x")


def paragraphs() -> SearchStrategy[str]:
    """One to three lines, with soft and hard breaks between them."""
    line = st.tuples(inline(), st.sampled_from(("\n", "\n", "  \n", "\\\n"))).map("".join)
    return st.lists(line, min_size=1, max_size=3).map(lambda lines: "".join(lines).rstrip("\\\n "))


def fences() -> SearchStrategy[str]:
    """Fenced code that may hold fences itself."""

    def write(label: str, lines: list[str]) -> str:
        return "\n".join([f"``````{label}", *lines, "``````"])

    return st.builds(write, st.sampled_from(LABELS), st.lists(st.sampled_from(CODE_LINES), max_size=6))


def formulas() -> SearchStrategy[str]:
    """Display formulas, of one line or several."""
    several = st.lists(st.sampled_from(FORMULA_LINES), min_size=2, max_size=4).map("\n".join)
    return st.one_of(
        st.sampled_from(FORMULAS).map(lambda tex: f"\\[ {tex} \\]"), several.map(lambda tex: f"\\[\n{tex}\n\\]")
    )


def tables() -> SearchStrategy[str]:
    """Tables with alignments and bars in their cells."""
    cell = st.one_of(
        inline(1), inline(0), st.sampled_from(("", "a \\| b", "`a \\| b`", "- x", "a<br>b", "1. x", "# y", "\\\\"))
    )

    def write(width: int, marks: list[str], cells: list[str]) -> str:
        cells = [text.replace("\n", " ") for text in cells]
        rows = [cells[at : at + width] for at in range(0, len(cells), width)]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "|".join(marks[:width]) + "|", *lines[1:]])

    mark = st.sampled_from(("---", ":--", "--:", ":-:"))
    return st.integers(1, 3).flatmap(
        lambda width: st.builds(
            write,
            st.just(width),
            st.lists(mark, min_size=3, max_size=3),
            st.lists(cell, min_size=width, max_size=width * 3),
        )
    )


def indented(text: str, first: str) -> str:
    """A block inside a list's item."""
    lines = text.split("\n")
    return "\n".join([first + lines[0], *(" " * len(first) + line if line else "" for line in lines[1:])])


def lists(depth: int) -> SearchStrategy[str]:
    """Lists, tight and loose, of any mark and first number, with blocks in them."""
    item = st.one_of(
        inline(1),
        inline(1),
        st.just(""),
        st.sampled_from(("[ ] todo", "[x] done")),
        st.lists(blocks(depth - 1), min_size=1, max_size=3),
    )

    def write(mark: str, items: list[str | list[str]], gap: str, inner: str) -> str:
        written = []
        for number, content in enumerate(items):
            text = content if isinstance(content, str) else inner.join(content)
            first = f"{int(mark[:-1]) + number}{mark[-1]} " if mark[0].isdigit() else f"{mark} "
            written.append(indented(text, first))
        return gap.join(written)

    marks = st.sampled_from(("-", "-", "*", "+", "1.", "1.", "1)", "3.", "9.", "0.", "98.", "007."))
    gaps = st.sampled_from(("\n", "\n\n"))
    return st.builds(write, marks, st.lists(item, min_size=1, max_size=4), gaps, gaps)


def blocks(depth: int = 2) -> SearchStrategy[str]:
    """One block."""
    kinds = [
        paragraphs(),
        paragraphs(),
        st.tuples(st.sampled_from(("# ", "## ", "### ", "###### ")), inline(1)).map("".join),
        fences(),
        formulas(),
        tables(),
        st.sampled_from(("---", "***", "_ _ _")),
    ]
    if depth:
        kinds += [lists(depth), lists(depth)]
        quoted = st.lists(blocks(depth - 1), min_size=1, max_size=2).map("\n\n".join)
        kinds.append(quoted.map(lambda text: "\n".join(f"> {line}" for line in text.split("\n"))))
    return st.one_of(kinds)


def documents() -> SearchStrategy[str]:
    """A whole answer."""
    block = st.tuples(blocks(), st.sampled_from(("\n\n", "\n\n", "\n\n", "\n"))).map("".join)
    return st.lists(block, min_size=1, max_size=4).map(lambda parts: "".join(parts).rstrip("\n"))
