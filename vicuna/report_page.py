"""Static HTML pages: one file that requests nothing else, with light and dark colours.

The cleaning report, the evaluation report and the demo's page are made of these blocks. The charts are inline SVG, so
that a page can be opened, mailed or printed alone.
"""

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from vicuna.io.files import atomic_file

COLORS = ("#2f6fdb", "#d9622b", "#2a9d66", "#a14fc0", "#c0a020", "#c2385a")
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
Series = dict[str, list[tuple[float, float]]]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #60666d; --line: #d8dce0; --paper: #fff; --panel: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --faint: #9aa1a9; --line: #383d44; --paper: #15181c; --panel: #1e2227; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 5rem; max-width: 62rem; font: 16px/1.55 system-ui, sans-serif;
       color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.8rem; margin: 0 0 .5rem; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.3rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1.05rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; display: block;
        overflow-x: auto; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; } td.number, th.number { text-align: right; }
pre { background: var(--panel); padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; white-space: pre-wrap;
      font: 13px/1.5 ui-monospace, monospace; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
.faint { color: var(--faint); } .charts { display: flex; flex-wrap: wrap; gap: 1rem; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .faint { fill: var(--faint); }
svg .grid { stroke: var(--line); } svg .title { font-weight: 600; font-size: 13px; }
"""


class Page:
    """A page under construction. Texts are escaped; only `add_html` takes markup."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._blocks: list[str] = []

    def add_html(self, markup: str) -> Self:
        """Add markup as it is, for example a chart."""
        self._blocks.append(markup)
        return self

    def add_heading(self, text: str, level: int = 2) -> Self:
        """Add a heading of level 2 or 3."""
        return self.add_html(f"<h{level}>{html.escape(text)}</h{level}>")

    def add_paragraph(self, text: str, *, faint: bool = False) -> Self:
        """Add a paragraph."""
        return self.add_html(f"<p{' class=faint' if faint else ''}>{html.escape(text)}</p>")

    def add_code(self, text: str) -> Self:
        """Add text in which every space counts."""
        return self.add_html(f"<pre>{html.escape(text)}</pre>")

    def add_table(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] | None = None
    ) -> Self:
        """Add a table; the columns in `numeric` (by default those whose every cell is a number) align right."""
        return self.add_html(table(headers, rows, numeric=numeric))

    def add_details(self, summary: str, markup: str) -> Self:
        """Add markup that opens when its summary is clicked."""
        return self.add_html(f"<details><summary>{html.escape(summary)}</summary>{markup}</details>")

    def render(self) -> str:
        """The page as HTML."""
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            f"<body><h1>{title}</h1>\n" + "\n".join(self._blocks) + "\n</body></html>\n"
        )

    def write(self, path: Path | str) -> None:
        """Write the page atomically. Half a surrogate pair, which UTF-8 cannot hold, is spelled out."""
        with atomic_file(path, "wb") as file:
            file.write(self.render().encode("utf-8", "backslashreplace"))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] | None = None) -> str:
    """A table as markup, its cells escaped."""
    body = [list(row) for row in rows]
    if numeric is None:
        numeric = [
            column
            for column in range(len(headers))
            if body and all(isinstance(row[column], int | float) for row in body)
        ]
    right = set(numeric)

    def cell(tag: str, column: int, value: object) -> str:
        kind = " class=number" if column in right else ""
        return f"<{tag}{kind}>{html.escape(_shown(value))}</{tag}>"

    head = "".join(cell("th", column, value) for column, value in enumerate(headers))
    lines = ("<tr>" + "".join(cell("td", column, value) for column, value in enumerate(row)) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def line_chart(series: Series, *, title: str, x_label: str, y_label: str) -> str:
    """Lines over a common scale, as SVG. Points that are not finite are left out."""
    lines = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return _empty(title)
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    frame = _Frame(x_ticks, y_ticks)
    parts = [frame.draw(title, x_label, y_label)]
    for index, (name, line) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(line) <= 30:
            parts += [f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" fill="{color}"/>' for x, y in line]
        if len(lines) > 1:
            parts.append(_legend(index, name, color))
    return _svg(title, parts)


def bar_chart(values: dict[str, float], *, title: str, unit: str = "") -> str:
    """Horizontal bars with their values written out, as SVG."""
    if not values:
        return _empty(title)
    bar_height, left = 26, min(240, 12 + 7 * max(map(len, values)))
    height = TOP + bar_height * len(values) + 10
    largest = max(max(values.values()), 0) or 1
    parts = [f'<text x="8" y="20" class="title">{html.escape(title)}</text>']
    for index, (name, value) in enumerate(values.items()):
        y = TOP + index * bar_height
        width = max(0.0, (WIDTH - left - 110) * value / largest)
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{width:.1f}" height="18" rx="2" fill="{COLORS[0]}"/>')
        label = html.escape(f"{_shown(value)} {unit}".strip())
        parts.append(f'<text x="{left + width + 6:.1f}" y="{y + 16}" class="faint">{label}</text>')
    return _svg(title, parts, height)


def histogram(values: Sequence[float], *, bins: int = 20, title: str, x_label: str) -> str:
    """The number of values in each of `bins` equal bins, as SVG."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _empty(title)
    low, high = min(finite), max(finite)
    width = (high - low) / bins or 1.0
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, int((value - low) / width))] += 1
    frame = _Frame(ticks(low, low + width * bins), ticks(0, max(counts)))
    parts = [frame.draw(title, x_label, "count")]
    for index, count in enumerate(counts):
        x, right = frame.x(low + index * width), frame.x(low + (index + 1) * width)
        y = frame.y(count)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, right - x - 1):.1f}" height="{frame.y(0) - y:.1f}" '
            f'fill="{COLORS[0]}"/>'
        )
    return _svg(title, parts)


def radar_chart(axes: Sequence[str], series: dict[str, Sequence[float]], *, maximum: float, title: str) -> str:
    """One polygon per series over axes that all run from 0 to `maximum`, as SVG."""
    height, radius = 420, 140
    center_x, center_y = WIDTH / 2, height / 2 + 14

    def place(index: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * index / len(axes) - math.pi / 2
        length = radius * value / maximum
        return center_x + length * math.cos(angle), center_y + length * math.sin(angle)

    def polygon(values: Sequence[float], attributes: str) -> str:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, v) for i, v in enumerate(values)))
        return f'<polygon points="{corners}" {attributes}/>'

    parts = [f'<text x="8" y="20" class="title">{html.escape(title)}</text>']
    parts += [polygon([maximum * ring / 4] * len(axes), 'fill="none" class="grid"') for ring in range(1, 5)]
    for index, name in enumerate(axes):
        x, y = place(index, maximum * 1.14)
        anchor = "middle" if abs(x - center_x) < 20 else "start" if x > center_x else "end"
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{html.escape(name)}</text>')
    for index, (name, values) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        parts.append(polygon(values, f'fill="{color}" fill-opacity=".15" stroke="{color}" stroke-width="2"'))
        parts.append(_legend(index, name, color))
    return _svg(title, parts, height)


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


class _Frame:
    """The axes of a chart: values to coordinates in pixels."""

    def __init__(self, x_ticks: list[float], y_ticks: list[float]) -> None:
        self.x_ticks, self.y_ticks = x_ticks, y_ticks

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def draw(self, title: str, x_label: str, y_label: str) -> str:
        bottom = HEIGHT - BOTTOM
        parts = [f'<text x="8" y="20" class="title">{html.escape(title)}</text>']
        for value in self.y_ticks:
            y = self.y(value)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" class="faint">{value:,.6g}</text>')
        for value in self.x_ticks:
            x, y = self.x(value), bottom + 16
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" class="faint">{value:,.6g}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{html.escape(x_label)}</text>')
        parts.append(
            f'<text x="14" y="{(TOP + bottom) / 2}" text-anchor="middle" '
            f'transform="rotate(-90 14 {(TOP + bottom) / 2})">{html.escape(y_label)}</text>'
        )
        return "".join(parts)


def _legend(index: int, name: str, color: str) -> str:
    y = TOP + 12 + index * 18
    return (
        f'<text x="{WIDTH - RIGHT - 18}" y="{y}" text-anchor="end">{html.escape(name)}</text>'
        f'<rect x="{WIDTH - RIGHT - 12}" y="{y - 9}" width="10" height="10" fill="{color}"/>'
    )


def _empty(title: str) -> str:
    text = (
        f'<text x="8" y="20" class="title">{html.escape(title)}</text><text x="8" y="48" class="faint">no data</text>'
    )
    return _svg(title, [text], 70)


def _svg(title: str, parts: Iterable[str], height: int = HEIGHT) -> str:
    style = "text{fill:#60666d;font:12px system-ui,sans-serif}.grid{stroke:#8884}.title{font-weight:600;font-size:13px}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{html.escape(title)}"><style>{style}</style>{"".join(parts)}</svg>'
    )
