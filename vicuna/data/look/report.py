"""The report of a cleaning as an HTML page: what came in, where records were dropped and why, and what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from vicuna.data.look.figures import Figures, clip_at_p99
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import human_bytes
from vicuna.io.markup import fill
from vicuna.report_page import Page, bar_chart, histogram, table

NUM_LANGUAGES = 15  # in the chart; report.json has all


def report_page(manifest: Mapping[str, Any], figures: Figures, rules: Mapping[str, str]) -> Page:
    """The page of one cleaning."""
    data = figures.to_dict(manifest, rules)
    page = Page("Cleaned conversations")
    _add_summary(page, manifest["counts"])
    _add_funnel(page, data["funnel"])
    _add_rules(
        page,
        "Why records were dropped or merged",
        "Each of these records is gone whole. Open a rule for examples; dropped.jsonl has every one, and "
        "vicuna data show --rule RULE --in this folder prints them.",
        data["dropped"],
        manifest["counts"]["records_in"],
    )
    _add_rules(
        page,
        "What was repaired or cut out of records that stay",
        "A record may have been repaired by several rules, and by one rule in several turns. repairs.jsonl has every "
        "repair.",
        data["repairs"],
        None,
    )
    _add_duplicates(page, data["duplicates"])
    _add_private(page, data["private"])
    _add_languages(page, data["languages"], data["languages_dropped"])
    _add_lengths(page, data["lengths"], figures)
    _add_split(page, data["split"])
    _add_provenance(page, manifest)
    return page


def _add_summary(page: Page, counts: Mapping[str, int]) -> None:
    page.add_paragraph(
        f"{counts['records_in']:,} records came in. {counts['kept']:,} were kept, {counts['dropped']:,} dropped and "
        f"{counts['merged']:,} merged into one that says the same. {counts['repaired']:,} of those kept were repaired, "
        f"{counts['split']:,} split into {counts['pieces']:,} pieces. "
        f"{counts['records_out']:,} records go into training"
        + (f", {counts['held_out']:,} are held out." if counts["held_out"] else ".")
    )
    if counts.get("set_aside"):
        page.add_paragraph(
            f"{counts['set_aside']:,} of those dropped could not be used at all: they could not be read, or a step "
            "failed on them."
        )


def _add_funnel(page: Page, steps: Sequence[JsonObject]) -> None:
    page.add_heading("Step by step")
    page.add_table(
        ["step", "version", "in", "kept", "dropped", "merged"],
        [[step[key] for key in ("name", "version", "records_in", "kept", "dropped", "merged")] for step in steps],
        numeric=range(1, 6),
    )
    left = {"in": float(steps[0]["records_in"])} | {step["name"]: float(step["kept"]) for step in steps}
    page.add_html(bar_chart(left, title="Records left after each step"))


def _add_rules(page: Page, title: str, text: str, rules: Sequence[JsonObject], total: int | None) -> None:
    page.add_heading(title)
    if not rules:
        page.add_paragraph("None.", faint=True)
        return
    page.add_paragraph(text)
    for rule in rules:
        part = "" if total is None else f" ({rule['count'] / total:.1%} of the records that came in)"
        rows = [
            [sample["id"], "" if sample["turn"] is None else str(sample["turn"]), sample["source"], sample["evidence"]]
            for sample in rule["samples"]
        ]
        samples = table(["id", "turn", "source", "evidence"], rows, numeric=())
        page.add_details(
            f"{rule['rule']}: {rule['count']:,}{part}: {rule['meaning']}",
            fill("data/look/rule.html", rule=rule, samples=samples),
        )


def _add_duplicates(page: Page, duplicates: JsonObject) -> None:
    if not duplicates["clusters"]:
        return
    page.add_heading("Records that say the same")
    page.add_paragraph(
        f"Groups of records that say the same: {duplicates['clusters']:,}. One of each stays. How large they are:"
    )
    page.add_table(
        ["records in a group", "groups"],
        [[int(size), number] for size, number in duplicates["clusters_by_size"].items()],
    )
    rows = [
        [
            cluster["kept"],
            cluster["size"],
            ", ".join(cluster["some_merged"]) + (", …" if len(cluster["some_merged"]) < cluster["size"] - 1 else ""),
        ]
        for cluster in duplicates["largest"]
    ]
    page.add_details("The largest", table(["stays", "stands for", "merged into it"], rows, numeric=[1]))


def _add_private(page: Page, private: Mapping[str, int]) -> None:
    if not private:
        return
    page.add_heading("Private data")
    page.add_paragraph("What was found in questions and answers; the rules above say what was done about it.")
    page.add_table(["kind", "times"], [[kind, times] for kind, times in private.items()])


def _add_languages(page: Page, languages: Mapping[str, int], dropped: Mapping[str, int]) -> None:
    if not languages and not dropped:
        return
    page.add_heading("Languages")
    page.add_paragraph("By ISO 639 code; und is undetermined: too little text, or too mixed, to tell.")
    for title, counts in (("Records that came out", languages), ("Records dropped for their language", dropped)):
        if not counts:
            continue
        shown = {name: float(number) for name, number in list(counts.items())[:NUM_LANGUAGES]}
        if rest := sum(counts.values()) - int(sum(shown.values())):
            shown[f"{len(counts) - NUM_LANGUAGES} more"] = float(rest)
        page.add_html(bar_chart(shown, title=title))


def _add_lengths(page: Page, lengths: Mapping[str, JsonObject], figures: Figures) -> None:
    page.add_heading("Lengths of the records that came out")
    if not lengths:
        page.add_paragraph("No record came out.", faint=True)
        return
    columns = [name for name in next(iter(lengths.values())) if name != "records"]
    page.add_table(
        ["in a record", *columns],
        [[name, *(values[column] for column in columns)] for name, values in lengths.items()],
        numeric=range(1, len(columns) + 1),
    )
    if "tokens" not in lengths:
        page.add_paragraph("Tokens are counted where --tokenizer and --template are given.", faint=True)
    charts = []
    for name, values in (("messages", figures.num_messages), ("tokens", figures.num_tokens)):
        if values:
            shown, last = clip_at_p99(values)
            label = name if last == max(values) else f"{name} ({last:,} and more in the last bar)"
            charts.append(histogram(shown, title=f"{name.capitalize()} in a record", x_label=label))
    page.add_charts(charts)


def _add_split(page: Page, split: JsonObject) -> None:
    if not split["rounds_in"]:
        return
    page.add_heading("Splitting")
    if split["max_tokens"] is None:
        page.add_paragraph(f"Tokens were counted under the template {split['template']}; nothing was split.")
        return
    page.add_paragraph(
        f"At most {split['max_tokens']:,} tokens under the template {split['template']}. Records cut between rounds: "
        f"{split['records_split']:,}, into {split['pieces']:,} pieces; {split['pieces_with_context']:,} of them "
        "begin with earlier rounds as context."
    )
    page.add_table(
        ["rounds (a question with its answers)", ""],
        [
            ["came to the splitter", split["rounds_in"]],
            ["came out of it", split["rounds_out"]],
            ["with an answer that was cut at the end of a block", split["answers_cut"]],
            ["left out, because too long by themselves", split["rounds_dropped"]],
        ],
        numeric=[1],
    )
    page.add_paragraph(f"Records that came out longer than the budget: {split['over_budget']:,}.")


def _add_provenance(page: Page, manifest: Mapping[str, Any]) -> None:
    page.add_heading("Files and options")
    inputs = [["in", file["name"], human_bytes(file["size_bytes"]), file["sha256"]] for file in manifest["inputs"]]
    lists = [
        [name, file["name"], human_bytes(file["size_bytes"]), file["sha256"]]
        for name, files in manifest["lists"].items()
        for file in files
    ]
    outputs = [
        ["out", name, human_bytes(file["size_bytes"]), file["sha256"]] for name, file in manifest["outputs"].items()
    ]
    page.add_table(["", "file", "size", "SHA-256"], [*inputs, *lists, *outputs], numeric=[2])
    options = [[name, _shown(value)] for name, value in manifest["options"].items()]
    page.add_table(["option", "value"], options, numeric=())


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)
