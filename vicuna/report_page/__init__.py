"""Static HTML pages: one file that requests nothing else, with light and dark colours.

The cleaning report, the evaluation report and the demo's page are made of these blocks. The charts are inline SVG, so
that a page can be opened, mailed or printed alone. The templates stand beside the modules that fill them in.

- `page`: headings, paragraphs, tables and what opens at a click, in the order in which they are added
- `charts`: lines, bars, histograms and radar charts as SVG
"""

from vicuna.report_page.charts import bar_chart, histogram, line_chart, radar_chart, read_chart
from vicuna.report_page.page import Page, columns, table

__all__ = ["Page", "bar_chart", "columns", "histogram", "line_chart", "radar_chart", "read_chart", "table"]
