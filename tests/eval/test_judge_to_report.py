"""From answers to the page with the stand-in judge and the shipped questions, as a user runs it."""

import json
from pathlib import Path

import pytest

from vicuna.eval.__main__ import main
from vicuna.eval.judging.rule_judge import running_rule_judge
from vicuna.eval.questions import load_questions
from vicuna.io.jsonl import write_jsonl
from vicuna.material import material


@pytest.mark.parametrize("mode", ["pair", "single"])
def test_rule_judge_to_page(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole path with the stand-in judge and the shipped questions, as a user runs it."""
    good = "The quick answer first states its assumptions, names sources, then works the steps one by one to the end."
    asked = load_questions(material("eval/questions.jsonl"))[::8]
    rows = [
        {"question_id": one.question_id, "model_id": model, "text": text}
        for one in asked
        for model, text in (("full", f"{good} {one.text} {one.reference}"), ("empty", ""))
    ]
    answers, judgments = tmp_path / "answers.jsonl", tmp_path / "j.jsonl"
    write_jsonl(answers, rows)
    files = ["--answers", str(answers), "--output", str(judgments)]
    with running_rule_judge() as base_url:
        judge = ["judge", "--mode", mode, "--judge", "rule-judge", "--base-url", base_url]
        assert main([*judge, *files]) == 0
    page = tmp_path / "r.html"
    more = ["--answers", str(answers), "--output", str(page), "--json", str(tmp_path / "r.json")]
    assert main(["report", "--judgments", str(judgments), *more]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["differences"][0]["is_distinguishable"] and "has" in found["findings"][0]
    assert found["models"]["full"]["mean"] > found["models"]["empty"]["mean"] == (0 if mode == "pair" else 1)
    assert found["models"]["empty"]["mean_words"] == 0 and found["hashes"]["answers"]
    assert found["unscored"]["unreadable_judgments"] == 0
    text = page.read_text()
    assert "stand-in, not a judge" in text and good.split()[0] in text and text.count("<details>") >= 10
    answers.write_text(answers.read_text().replace("quick", "slow"))
    assert main(["report", "--judgments", str(judgments), *more]) == 1
    assert "is another one in --answers" in capsys.readouterr().err
