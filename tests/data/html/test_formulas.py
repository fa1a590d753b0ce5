"""Formulas come out once, as their TeX."""

from tests.data.html.builders import FORMULA
from vicuna.data.html.walker import to_markdown


def test_formulas_come_from_their_tex_once() -> None:
    assert to_markdown(f"<p>Let {FORMULA} be.</p>") == "Let \\( x < \\frac{1}{2} \\) be."
    block = f'<p>So</p><div class="math math-display"><span class="katex-display">{FORMULA}</span></div>'
    assert to_markdown(block) == "So\n\n\\[ x < \\frac{1}{2} \\]"


def test_a_formula_below_a_line_of_text_gets_its_marks_back() -> None:
    html = "<p>Squared:\n[ x^2 = 2 + \\sqrt{3} ]\nThen [ a ] and\n[ a list ]</p><p>[ y = 1 ]</p>"
    assert to_markdown(html) == "Squared:\n\\[ x^2 = 2 + \\sqrt{3} \\]\nThen [ a ] and\n[ a list ]\n\n[ y = 1 ]"
