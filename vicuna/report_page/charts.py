"""Charts as SVG: values become coordinates in pixels here; the templates beside this file draw them."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vicuna.io.markup import Markup, fill

MAX_LINE_POINTS = 2000
"""Of a line; one with more is drawn by at most four points for each pixel of the width."""
COLORS = ("#2f6fdb", "#d9622b", "#2a9d66", "#a14fc0", "#c0a020", "#c2385a")
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
# What our charts are made of. A longer file, or one with anything else, is not shown.
MAX_CHART_BYTES = 4 << 20
ATTRIBUTES = frozenset(
    """
    xmlns viewBox width height role aria-label x y x1 x2 y1 y2 cx cy r rx points fill fill-opacity stroke stroke-width
    class text-anchor transform
    """.split()  # noqa: SIM905 (a table of words reads better as text)
)
_TOKEN = re.compile(
    r"<style>(?P<style>[^<>]*)</style>|</?(?:svg|text|line|rect|polyline|polygon|circle)"
    r"(?P<attributes>(?:\s[\w:-]+=\"[^\"<>]*\")*)\s?/?>|[^<>]+"
)
_ATTRIBUTE = re.compile(r"\s([\w:-]+)=\"[^\"]*\"")
Series = dict[str, list[tuple[float, float]]]
Point = tuple[float, float]


def line_chart(series: Series, *, title: str, x_label: str, y_label: str) -> Markup:
    """Lines over a common scale. Points that are not finite are left out."""
    lines = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return _empty(title)
    axes = _Axes(
        ticks(min(x for x, _ in points), max(x for x, _ in points)),
        ticks(min(y for _, y in points), max(y for _, y in points)),
    )
    drawn = [
        (name, color, [(axes.x(x), axes.y(y)) for x, y in _thinned(line)])
        for (name, line), color in zip(lines.items(), itertools.cycle(COLORS), strict=False)
    ]
    return _chart("lines", title, axes=axes, lines=drawn, x_label=x_label, y_label=y_label)


def _thinned(line: list[Point]) -> list[Point]:
    """The points that show: of a line with many, the first, lowest, highest and last of each pixel column."""
    if len(line) <= MAX_LINE_POINTS:
        return line
    columns: dict[int, list[Point]] = {}
    first = min(x for x, _ in line)
    width = (max(x for x, _ in line) - first) / WIDTH or 1
    for point in line:
        columns.setdefault(int((point[0] - first) / width), []).append(point)
    thinned = []
    for points in columns.values():
        number = {id(point): index for index, point in enumerate(points)}
        extremes = (min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1]))
        thinned += [points[index] for index in sorted({0, len(points) - 1, *(number[id(one)] for one in extremes)})]
    return thinned


def bar_chart(values: dict[str, float], *, title: str, unit: str = "") -> Markup:
    """Horizontal bars with their values written out."""
    if not values:
        return _empty(title)
    bar_height, left = 26, min(240, 12 + 7 * max(map(len, values)))
    longest = (WIDTH - left - 110) / (max(max(values.values()), 0) or 1)
    bars = [
        (name, TOP + index * bar_height, round(max(0.0, value * longest), 1), f"{shown(value)} {unit}".strip())
        for index, (name, value) in enumerate(values.items())
    ]
    return _chart("bars", title, TOP + bar_height * len(values) + 10, bars=bars, left=left, color=COLORS[0])


def histogram(values: Sequence[float], *, bins: int = 20, title: str, x_label: str) -> Markup:
    """The number of values in each of `bins` equal bins."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _empty(title)
    low, high = min(finite), max(finite)
    bin_width = (high - low) / bins or 1.0
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, int((value - low) / bin_width))] += 1
    axes = _Axes(ticks(low, low + bin_width * bins), ticks(0, max(counts)))
    bars = []
    for index, count in enumerate(counts):
        x, y = axes.x(low + index * bin_width), axes.y(count)
        width = max(0.5, axes.x(low + (index + 1) * bin_width) - x - 1)
        bars.append((x, y, round(width, 1), round(axes.bottom - y, 1)))
    return _chart("histogram", title, axes=axes, bars=bars, color=COLORS[0], x_label=x_label, y_label="count")


def radar_chart(axes: Sequence[str], series: dict[str, Sequence[float]], *, maximum: float, title: str) -> Markup:
    """One polygon per series over axes that all run from 0 to `maximum`."""
    height, radius = 420, 140
    center_x, center_y = WIDTH / 2, height / 2 + 14

    def place(index: int, value: float) -> Point:
        angle = 2 * math.pi * index / len(axes) - math.pi / 2
        length = radius * value / maximum
        return round(center_x + length * math.cos(angle), 1), round(center_y + length * math.sin(angle), 1)

    def corners(values: Sequence[float]) -> list[Point]:
        return [place(index, value) for index, value in enumerate(values)]

    labels = []
    for index, name in enumerate(axes):
        x, y = place(index, maximum * 1.14)
        labels.append((name, x, y, "middle" if abs(x - center_x) < 20 else "start" if x > center_x else "end"))
    polygons = [
        (name, color, corners(values))
        for (name, values), color in zip(series.items(), itertools.cycle(COLORS), strict=False)
    ]
    rings = [corners([maximum * ring / 4] * len(axes)) for ring in range(1, 5)]
    return _chart("radar", title, height, labels=labels, polygons=polygons, rings=rings)


def read_chart(path: Path) -> Markup:
    """A chart of ours from a file; an empty one if the file holds anything that no chart of ours has.

    The file stands in a folder that others may write to, and what is on a page is run by a browser.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CHART_BYTES + 1).decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return _empty(path.name)
    position, style = 0, _style()
    while len(text) <= MAX_CHART_BYTES and (match := _TOKEN.match(text, position)):
        position = match.end()
        attributes = match["attributes"] or ""
        if match["style"] not in (None, style) or set(_ATTRIBUTE.findall(attributes)) - ATTRIBUTES:
            break
        if re.search(r"url|&#|\\", attributes, re.I):  # an address, or what may spell one
            break
        if position == len(text):
            return Markup(text)
    return _empty(path.name)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-100:
        margin = max(0.5, 0.01 * abs(low))
        low, high = low - margin, high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    interval = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / interval), math.ceil(high / interval)
    return [index * interval for index in range(first, last + 1)]


def shown(value: object) -> str:
    """A value for a reader: numbers with thousands apart, fractions with four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


class _Axes:
    """The axes of a chart: values, and the labels of the ticks, to coordinates in pixels."""

    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    center_x, center_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2

    def __init__(self, x_ticks: list[float], y_ticks: list[float]) -> None:
        self._x_ticks, self._y_ticks = x_ticks, y_ticks

    def x(self, value: float) -> float:
        low, high = self._x_ticks[0], self._x_ticks[-1]
        return round(self.left + (self.right - self.left) * (value - low) / (high - low), 1)

    def y(self, value: float) -> float:
        low, high = self._y_ticks[0], self._y_ticks[-1]
        return round(self.bottom - (self.bottom - TOP) * (value - low) / (high - low), 1)

    def columns(self) -> Iterator[tuple[str, float]]:
        return ((f"{value:,.6g}", self.x(value)) for value in self._x_ticks)

    def rows(self) -> Iterator[tuple[str, float]]:
        return ((f"{value:,.6g}", self.y(value)) for value in self._y_ticks)


def _style() -> str:
    return str(_empty("")).partition("<style>")[2].partition("</style>")[0]


def _empty(title: str) -> Markup:
    return _chart("chart", title, 70)


def _chart(template: str, title: str, height: int = HEIGHT, **values: object) -> Markup:
    return fill(f"report_page/{template}.svg", title=title, width=WIDTH, height=height, **values)
