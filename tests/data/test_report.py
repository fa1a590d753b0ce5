"""The report and its figures: a reader learns what was dropped and why, and the numbers are those of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.data.__main__ import main
from vicuna.data.look.figures import Figures, clip_at_p99
from vicuna.io.jsonl import read_json, read_jsonl, write_jsonl

LONG = "Ein Satz, der zeigt, dass diese Antwort auf Deutsch geschrieben ist und einen Sinn hat."


def conversation(identifier: str, *contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"id": identifier, "messages": messages}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, bpe_tokenizer_directory: Path) -> Path:
    folder = tmp_path_factory.mktemp("report")
    rows = [conversation(f"good-{number}", f"Question number {number}?", "Forty-two.") for number in range(6)]
    rows += [conversation(f"copy-{number}", "Question number 0?", "Forty-two.") for number in range(7)]
    rows += [
        conversation("again", "Question number 1?", "Forty-two."),
        conversation("german", LONG, LONG),
        conversation("error", "q", "Too many requests in 1 hour. Try again later."),
        conversation("<script>", "", "nothing"),
        conversation("mail", "Write to joe.smith@gmail.com, anna@web.de!", "Done."),
        conversation("long", *(text for at in range(6) for text in (f"Round {at}?", f"Answer {at}. " * 12))),
        conversation("too-long", "Why?", "because " * 300),
    ]
    write_jsonl(folder / "in.jsonl", rows)
    argv = [str(folder / "in.jsonl"), "--output-dir", str(folder / "out"), "--workers", "1", "--carry-over", "1"]
    argv += ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "250"]
    assert main([*argv, "--skip-languages", "de", "--near-duplicates", "0"]) == 0
    return folder / "out"


def test_figures_are_those_of_the_rows(result: Path) -> None:
    figures, manifest = read_json(result / "report.json"), read_json(result / "manifest.json")
    rows = {name: list(read_jsonl(result / f"{name}.jsonl")) for name in ("records", "dropped", "repairs")}
    assert {rule["rule"]: rule["count"] for rule in figures["dropped"]} == manifest["counts"]["rules"]
    assert {rule["rule"]: rule["count"] for rule in figures["repairs"]} == manifest["counts"]["repairs"]
    for rule in [*figures["dropped"], *figures["repairs"]]:
        found = [row for row in rows["dropped"] + rows["repairs"] if row["rule"] == rule["rule"]]
        assert len(found) == rule["count"]
        first = [{key: row[key] for key in ("id", "turn", "source", "evidence")} for row in found[:4]]
        assert rule["samples"] == first
        assert rule["meaning"]
    assert figures["lengths"]["messages"]["total"] == sum(len(row["messages"]) for row in rows["records"])
    assert figures["lengths"]["tokens"]["total"] == sum(row["num_tokens"] for row in rows["records"])
    assert figures["languages_dropped"] == {"de": 1}
    assert sum(figures["languages"].values()) == len(rows["records"])
    assert figures["funnel"] == manifest["steps"]


def test_duplicates_private_data_and_splitting_are_told(result: Path) -> None:
    figures = read_json(result / "report.json")
    assert figures["duplicates"] == {
        "clusters": 2,
        "clusters_by_size": {"2": 1, "8": 1},
        "largest": [
            {"kept": "good-0", "size": 8, "some_merged": [f"copy-{number}" for number in range(5)]},
            {"kept": "good-1", "size": 2, "some_merged": ["again"]},
        ],
    }
    assert figures["private"] == {"email": 2}
    split = figures["split"]
    assert split["records_split"] == 1
    assert split["pieces"] > 2
    assert 0 < split["pieces_with_context"] < split["pieces"]
    assert split["rounds_in"] == split["rounds_out"] + split["rounds_dropped"]
    assert split["over_budget"] == 0


def test_the_page_says_it_in_words(result: Path) -> None:
    page = (result / "report.html").read_text("utf-8")
    for words in (
        "20 records came in.",
        "duplicate: 8 (40.0% of the records that came in)",
        "error_message: 1",
        "Too many requests in 1 hour.",
        "4 of 8:",
        "Records dropped for their language",
        "begin with earlier rounds as context",
        "Records that came out longer than the budget: 0.",
        "&lt;script&gt;",
    ):
        assert words in page
    assert "<script" not in page


def test_figures_of_nothing_are_drawn_too(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [conversation("a", "", "b")])
    assert main([str(tmp_path / "in.jsonl"), "--output-dir", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "No record came out." in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["lengths"] == {}


def test_a_budget_that_is_passed_is_told() -> None:
    figures = Figures()
    for number in (5, 11, 12):
        figures.add_record({"num_messages": 2, "num_tokens": number})
    counts = dict.fromkeys(("split", "pieces", "rounds_in", "rounds_out", "rounds_dropped"), 0)
    counts |= dict.fromkeys(("records_in", "kept", "dropped", "merged", "repaired"), 0)
    manifest = {"counts": counts | {"rules": {}, "repairs": {}}, "steps": [], "options": {"max_tokens": 10}}
    assert figures.to_dict(manifest, {})["split"]["over_budget"] == 2


def test_giants_do_not_squeeze_a_histogram() -> None:
    values, last = clip_at_p99([*range(1000), 10**9])
    assert max(values) == last == 990
    assert len(values) == 1001
    assert clip_at_p99([]) == ([], 0)
