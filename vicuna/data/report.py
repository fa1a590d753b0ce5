"""The page about a cleaning: what came in, where records were lost, examples for every rule, lengths of what came out.

Drawn from the manifest and from what `Samples` saw pass by. `output` puts it beside the records.
"""

import html
from collections.abc import Mapping
from typing import Any

from vicuna.data.reduce import Row
from vicuna.log import human_bytes
from vicuna.page import Page, bar_chart, histogram, table

NUM_SAMPLES = 4  # for each rule


class Samples:
    """What the page needs of the rows: a few findings of each rule, and the lengths of the records."""

    def __init__(self) -> None:
        self.findings: dict[str, list[Row]] = {}
        self.turns: list[float] = []
        self.tokens: list[float] = []

    def add_finding(self, row: Row) -> None:
        """A row of dropped.jsonl or repairs.jsonl."""
        kept = self.findings.setdefault(row["rule"], [])
        if len(kept) < NUM_SAMPLES:
            kept.append(row)

    def add_record(self, facts: Mapping[str, Any]) -> None:
        """A record that came out: `num_messages`, and `num_tokens` and `language` where they are known."""
        self.turns.append(facts["num_messages"])
        if "num_tokens" in facts:
            self.tokens.append(facts["num_tokens"])


def report_page(manifest: Mapping[str, Any], samples: Samples, rules: Mapping[str, str]) -> Page:
    """The page of one cleaning."""
    counts = manifest["counts"]
    page = Page("Cleaned conversations")
    page.add_paragraph(
        f"{counts['records_in']:,} records came in. {counts['kept']:,} were kept, {counts['dropped']:,} dropped and "
        f"{counts['merged']:,} merged into one that says the same. {counts['repaired']:,} of those kept were repaired, "
        f"{counts['split']:,} split into {counts['pieces']:,} pieces. "
        f"{counts['records_out']:,} records go into training"
        + (f", {counts['held_out']:,} are held out." if counts["held_out"] else ".")
    )
    page.add_heading("Step by step")
    page.add_table(
        ["step", "version", "in", "kept", "dropped", "merged"],
        [
            [step[key] for key in ("name", "version", "records_in", "kept", "dropped", "merged")]
            for step in manifest["steps"]
        ],
        numeric=range(1, 6),
    )
    left = {"in": float(counts["records_in"])} | {step["name"]: float(step["kept"]) for step in manifest["steps"]}
    page.add_html(bar_chart(left, title="Records left after each step"))
    for title, kind in (("Dropped and merged, by rule", "rules"), ("Repairs, by rule", "repairs")):
        _add_rules(page, title, counts[kind], samples, rules)
    _add_lengths(page, manifest, samples)
    _add_provenance(page, manifest)
    return page


def _add_rules(page: Page, title: str, counts: Mapping[str, int], samples: Samples, rules: Mapping[str, str]) -> None:
    page.add_heading(title)
    if not counts:
        page.add_paragraph("None.", faint=True)
    for rule, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        rows = [
            [row["id"], "" if row["turn"] is None else str(row["turn"]), row["source"], row["evidence"]]
            for row in samples.findings[rule]
        ]
        shown = f"<p>{html.escape(rules[rule])}.</p>" + table(["id", "turn", "source", "evidence"], rows, numeric=())
        page.add_details(f"{rule}: {count:,}", shown)


def _add_lengths(page: Page, manifest: Mapping[str, Any], samples: Samples) -> None:
    counts = manifest["counts"]
    page.add_heading("Lengths")
    if counts["rounds_in"]:
        page.add_paragraph(
            f"{counts['tokens']:,} tokens under the template {manifest['options']['template']}. "
            f"{counts['rounds_in']:,} rounds came to the splitter, {counts['rounds_out']:,} came out, "
            f"{counts['rounds_dropped']:,} were too long by themselves."
        )
    charts = [histogram(samples.turns, title="Messages in a record", x_label="messages")]
    if samples.tokens:
        charts.append(histogram(samples.tokens, title="Tokens in a record", x_label="tokens"))
    page.add_html(f"<div class=charts>{''.join(charts)}</div>")


def _add_provenance(page: Page, manifest: Mapping[str, Any]) -> None:
    page.add_heading("Files and options")
    inputs = [["in", file["name"], human_bytes(file["size_bytes"]), file["sha256"]] for file in manifest["inputs"]]
    outputs = [
        ["out", name, human_bytes(file["size_bytes"]), file["sha256"]] for name, file in manifest["outputs"].items()
    ]
    page.add_table(["", "file", "size", "SHA-256"], [*inputs, *outputs], numeric=[2])
    options = [[name, "" if value is None else str(value)] for name, value in manifest["options"].items()]
    page.add_table(["option", "value"], options, numeric=())
