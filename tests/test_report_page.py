"""Pages and charts: escaped, whole, and without a request to anywhere."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

import vicuna
from vicuna.io.markup import Markup, fill
from vicuna.report_page import Page, bar_chart, histogram, line_chart, radar_chart, table
from vicuna.report_page.charts import ticks

PACKAGE = Path(vicuna.__file__).parent
NASTY = '<script>alert("x")</script> & "'
NUMBERS = st.floats(-1e30, 1e30) | st.sampled_from([float("nan"), float("inf"), float("-inf")])


def test_everything_is_escaped(tmp_path: Path) -> None:
    page = Page(NASTY).add_heading(NASTY).add_paragraph(NASTY).add_code(NASTY).add_table([NASTY], [[NASTY]])
    page.add_details(NASTY, line_chart({NASTY: [(0, 1)], "b": []}, title=NASTY, x_label=NASTY, y_label=NASTY))
    page.add_charts([bar_chart({NASTY: 1}, title=NASTY, unit=NASTY), histogram([1], title=NASTY, x_label=NASTY)])
    page.add_figure(radar_chart([NASTY] * 3, {NASTY: [1, 2, 3]}, maximum=3, title=NASTY))
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in text
    assert not re.search(r"(src|href)=|@import|url\(", text)


def test_what_is_no_markup_is_escaped_wherever_it_goes() -> None:
    text = Markup("<b>{}</b>").format(NASTY)
    assert Markup("<p>{}</p>").format(text) == f"<p>{text}</p>"
    page = Page("t").add_html(NASTY).add_details("s", NASTY).add_figure(NASTY).add_charts([NASTY])  # type: ignore[arg-type, list-item]
    assert "<script" not in page.render()
    assert page.render().count("&lt;script&gt;") == 4


def test_a_template_without_its_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="blocks"):
        fill("report_page/page.html", title="t")


def test_there_is_no_other_door_to_markup() -> None:
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".html", ".svg"):
            assert not re.search(r"\bsafe\b|autoescape", path.read_text("utf-8")), path
        elif path.suffix == ".py" and path.parent != PACKAGE / "data" / "html":  # reads markup, and writes Markdown
            assert not re.search(r"\bhtml\.escape\b|xml\.sax", path.read_text("utf-8")), path


def test_number_columns_align_right() -> None:
    markup = table(["name", "count"], [["a", 1200], ["b", 0.5]])
    assert '<td class=number data-label="count">1,200</td>' in markup
    assert '<td data-label="name">a</td>' in markup


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), NUMBERS), max_size=40))
def test_line_charts_are_well_formed(points: list[tuple[float, float]]) -> None:
    chart = line_chart({"a": points}, title="t", x_label="x", y_label="y")
    ElementTree.fromstring(chart)
    assert "nan" not in chart
    assert "inf" not in chart


@given(st.lists(NUMBERS, max_size=40))
def test_histograms_are_well_formed_and_lose_nothing(values: list[float]) -> None:
    ElementTree.fromstring(histogram(values, bins=7, title="t", x_label="x"))


def test_bars_and_radar() -> None:
    assert ElementTree.fromstring(bar_chart({"a": 3, "b": 0}, title="t", unit="MiB")) is not None
    assert "3 MiB" in bar_chart({"a": 3, "b": 0}, title="t", unit="MiB")
    assert "no data" in bar_chart({}, title="t")
    assert ElementTree.fromstring(radar_chart(["x", "y", "z"], {"m": [1, 2, 3]}, maximum=10, title="t")) is not None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2.1, 2.9), (-3, 7), (5, 5), (0, 1e9)])
def test_ticks_cover_the_range_with_round_numbers(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 12


def test_columns_and_marks_are_escaped() -> None:
    page = (
        Page("x").add_columns({"<a>": "<b>", "c": "d"}).add_marked_code("one <two> three", [(4, 9), (10, 15)]).render()
    )
    assert "<h3>&lt;a&gt;</h3><pre>&lt;b&gt;</pre>" in page
    assert "<pre>one <mark>&lt;two&gt;</mark> <mark>three</mark></pre>" in page


def test_a_cell_knows_its_heading_for_narrow_screens() -> None:
    page = Page("x").add_table(['size "MB"', "name"], [(1, "a")]).render()
    assert 'data-label="size &#34;MB&#34;">1</td>' in page


def test_a_line_of_many_points_is_drawn_by_those_that_show() -> None:
    few = {"a": [(float(x), math.sin(x / 100)) for x in range(2000)]}
    assert line_chart(few, title="t", x_label="x", y_label="y").count(",") >= 2000  # all of them
    many = [(float(x), math.sin(x / 100)) for x in range(100_000)]
    many[50_001] = (50_001, 9.0)  # a peak of one point
    chart = line_chart({"a": many}, title="t", x_label="x", y_label="y")
    assert len(chart) < 60_000
    assert str(chart) == str(line_chart({"a": many}, title="t", x_label="x", y_label="y"))
    without = line_chart({"a": [point for point in many if point[1] < 9]}, title="t", x_label="x", y_label="y")
    assert chart.split("<polyline")[0] != without.split("<polyline")[0]  # the axis reaches it
