"""A page under construction: headings, paragraphs, tables and what opens at a click, in the order of their adding."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from vicuna.io.files import atomic_file
from vicuna.io.markup import Markup, fill
from vicuna.report_page.charts import shown


class Page:
    """A page under construction. A text is escaped wherever it goes; markup is what has the type `Markup`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._blocks: list[Markup] = []

    def add_html(self, markup: Markup) -> Self:
        """Add markup as it is, for example a chart."""
        self._blocks.append(markup)
        return self

    def add_figure(self, chart: Markup) -> Self:
        """Add a chart with room around it."""
        return self.add_html(Markup("<figure>{}</figure>").format(chart))

    def add_charts(self, charts: Iterable[Markup]) -> Self:
        """Add charts side by side, as many as fit."""
        return self.add_html(Markup("<div class=charts>{}</div>").format(Markup("").join(charts)))

    def add_heading(self, text: str, level: int = 2) -> Self:
        """Add a heading of level 2 or 3."""
        return self.add_html(Markup("<h{0}>{1}</h{0}>").format(level, text))

    def add_paragraph(self, text: str, *, faint: bool = False) -> Self:
        """Add a paragraph."""
        return self.add_html(Markup("<p class=faint>{}</p>" if faint else "<p>{}</p>").format(text))

    def add_code(self, text: str) -> Self:
        """Add text in which every space counts."""
        return self.add_html(Markup("<pre>{}</pre>").format(text))

    def add_table(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] | None = None
    ) -> Self:
        """Add a table; the columns in `numeric` (by default those whose every cell is a number) align right."""
        return self.add_html(table(headers, rows, numeric=numeric))

    def add_columns(self, texts: Mapping[str, str]) -> Self:
        """Add texts beside one another, each under its title; one below the other where there is no room."""
        return self.add_html(columns(texts))

    def add_marked_code(self, text: str, spans: Iterable[tuple[int, int]]) -> Self:
        """Add text in which every space counts, with the characters of `[start, end)` spans marked."""
        pieces, position = [], 0
        for start, end in spans:
            pieces += [(text[position:start], False), (text[start:end], True)]
            position = end
        return self.add_html(fill("report_page/spans.html", pieces=[*pieces, (text[position:], False)]))

    def add_details(self, summary: str, markup: Markup) -> Self:
        """Add markup that opens when its summary is clicked."""
        return self.add_html(Markup("<details><summary>{}</summary>{}</details>").format(summary, markup))

    def render(self) -> Markup:
        """The page as HTML."""
        return fill("report_page/page.html", title=self.title, blocks=self._blocks)

    def write(self, path: Path | str) -> None:
        """Write the page atomically. Half a surrogate pair, which UTF-8 cannot hold, is spelled out."""
        with atomic_file(path, "wb") as file:
            file.write(self.render().encode("utf-8", "backslashreplace"))


def columns(texts: Mapping[str, str]) -> Markup:
    """Texts beside one another, each under its title."""
    return fill("report_page/columns.html", texts=texts)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] | None = None) -> Markup:
    """A table; the columns in `numeric` (by default those whose every cell is a number) align right."""
    body = [list(row) for row in rows]
    if numeric is None:
        numeric = [
            column
            for column in range(len(headers))
            if body and all(isinstance(row[column], int | float) for row in body)
        ]
    cells = [[shown(value) for value in row] for row in body]
    return fill("report_page/table.html", headers=headers, rows=cells, numeric=set(numeric))
