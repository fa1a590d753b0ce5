"""Formulas of a page as TeX. KaTeX renders each three times; one of them has the TeX that the model wrote."""

import re

from vicuna.data.html.dom import Element

BLOCK_START_LINE = re.compile(r"\n\s*(?=[-+*=#>~`|:\d])")
UNMARKED_FORMULA = re.compile(r"(?<=\n)\[ (?=[^\n]*(?:\\[A-Za-z]|[=^]))([^\n]+) \](?=\n|$)")


def is_formula(names: str) -> bool:
    """Whether classes are those of a formula in a line. (`katex-error` shows the TeX that could not be drawn.)"""
    return ("katex" in names and not {"katex", "katex-error"}.isdisjoint(names.split())) or "math-inline" in names


def is_display_formula(names: str) -> bool:
    """Whether classes are those of a formula on lines of its own."""
    return "katex-display" in names or "math-display" in names


def inline_formula(element: Element) -> str:
    """A formula between `\\(` and `\\)`; line breaks stay, except before what would begin a block."""
    return f"\\( {BLOCK_START_LINE.sub(' ', _tex(element))} \\)"


def display_formula(element: Element) -> str:
    """A formula between `\\[` and `\\]`; on lines of their own if it has several."""
    formulas = [part for part in element.descendants() if part.classes and is_formula(part.classes)] or [element]
    texts = [_tex(formula) for formula in formulas]
    return "\n".join(f"\\[\n{tex}\n\\]" if "\n" in tex else f"\\[ {tex} \\]" for tex in texts)


def restore_formula_marks(paragraph: str) -> str:
    """A paragraph in which display formulas that the page shows as text get back their backslashes.

    `\\[ x^2 = 4 \\]` below a line of text is not a formula to the page, which shows it without backslashes. Markdown
    with and without them renders the same; with them it is what the model wrote.
    """
    return UNMARKED_FORMULA.sub(r"\\[ \1 \\]", paragraph) if "\n[ " in paragraph else paragraph


def _tex(element: Element) -> str:
    """The TeX of a formula; if it is missing, the text of one of the renderings."""
    parts = element.descendants()
    found = next(
        (part for part in parts if part.tag == "annotation" and part.get("encoding") == "application/x-tex"), None
    )
    if found is None:
        drawings = (part for part in element.descendants() if part.tag == "math" or "katex-mathml" in part.classes)
        found = next(drawings, element)
    return re.sub(r"\n\s*\n", "\n", found.text().strip())
