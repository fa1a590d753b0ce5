"""The report's page: what was dropped and why, in words, and nothing of it is run by a browser."""

import json
from pathlib import Path

from tests.data.builders import messages_row, run_command, sharegpt_row
from vicuna.data.__main__ import main
from vicuna.io.jsonl import write_jsonl


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
    write_jsonl(tmp_path / "in.jsonl", [messages_row("a", "", "b")])
    assert main([str(tmp_path / "in.jsonl"), "--output-dir", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "No record came out." in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["lengths"] == {}


def test_the_report_names_every_rule_and_escapes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(sharegpt_row("<script>alert(1)</script>", "q", "Network error")) + "\n", "utf-8")
    assert run_command(path, "--output-dir", tmp_path / "out") == 1  # nothing is left, but the report says why
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "error_message: 1" in page and "&lt;script&gt;" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
