"""Formulas of a page as TeX. KaTeX draws each in three ways at once, and one of them carries what the model wrote.

`html` asks for those on lines of their own, `inline` for those in a line.
"""

import re

from vicuna.data.html.dom import Element

RISKY_LINE = re.compile(r"\n\s*(?=[-+*=#>~`|:\d])")
LOST_LINE = re.compile(r"(?<=\n)\[ (?=[^\n]*(?:\\[A-Za-z]|[=^]))([^\n]+) \](?=\n|$)")


def is_formula(names: str) -> bool:
    """Whether classes are those of a formula in a line. (`katex-error` shows the TeX that could not be drawn.)"""
    return ("katex" in names and not {"katex", "katex-error"}.isdisjoint(names.split())) or "math-inline" in names


def is_display_formula(names: str) -> bool:
    """Whether classes are those of a formula on lines of its own."""
    return "katex-display" in names or "math-display" in names


def inline_formula(element: Element) -> str:
    """A formula between `\\(` and `\\)`; its lines stay, but for those that would begin a block."""
    return f"\\( {RISKY_LINE.sub(' ', _tex(element))} \\)"


def display_formula(element: Element) -> str:
    """A formula between `\\[` and `\\]`; on lines of their own if it has several."""
    formulas = [part for part in element.descendants() if part.classes and is_formula(part.classes)] or [element]
    texts = [_tex(formula) for formula in formulas]
    return "\n".join(f"\\[\n{tex}\n\\]" if "\n" in tex else f"\\[ {tex} \\]" for tex in texts)


def restore_lost(paragraph: str) -> str:
    """A paragraph with the marks of formulas that the page took for brackets: those below a line of text.

    `\\[ x^2 = 4 \\]` there is read as text, and its backslashes are gone. To put them back changes nothing for a reader
    of Markdown, and gives the formula that the model wrote.
    """
    return LOST_LINE.sub(r"\\[ \1 \\]", paragraph) if "\n[ " in paragraph else paragraph


def _tex(element: Element) -> str:
    """The TeX; without it the best that is left, one of the drawings and not all three."""
    parts = element.descendants()
    found = next(
        (part for part in parts if part.tag == "annotation" and part.get("encoding") == "application/x-tex"), None
    )
    if found is None:
        drawings = (part for part in element.descendants() if part.tag == "math" or "katex-mathml" in part.classes)
        found = next(drawings, element)
    return re.sub(r"\n\s*\n", "\n", found.text().strip())
