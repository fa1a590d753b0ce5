"""From recorded judgments to figures and a page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vicuna.eval.__main__ import main
from vicuna.eval.judging.rule_judge import running_rule_judge
from vicuna.eval.questions import load_questions
from vicuna.eval.reporting.score import load_judgments, position_counts, summarize
from vicuna.io.jsonl import write_jsonl
from vicuna.material import material

Row = dict[str, Any]


def row(question_id: int, order: int, winner: str | None, models: tuple[str, str] = ("m1", "m2"), **more: Any) -> Row:
    return {
        "key": f"{question_id} {order} {models} {more}",
        "mode": "pair",
        "question_id": question_id,
        "category": "math" if question_id % 2 else "writing",
        "judge": ["j", "pair-1"],
        "order": order,
        "repeat": 0,
        "prompt_hash": "p",
        "model_1": models[0],
        "model_2": models[1],
        f"g{order}_winner": winner,
        f"g{order}_judgment": f"because <b>{winner}</b>",
        **more,
    }


def report(tmp_path: Path, rows: list[Row], *more: str) -> tuple[dict[str, Any], str]:
    write_jsonl(tmp_path / "j.jsonl", rows)
    files = ["--output", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json")]
    assert main(["report", *files, "--judgments", str(tmp_path / "j.jsonl"), *more]) == 0
    return json.loads((tmp_path / "r.json").read_text()), (tmp_path / "r.html").read_text()


def test_clear_winner(tmp_path: Path) -> None:
    rows = [row(n, order, "model_2" if n < 19 else "model_1") for n in range(20) for order in (1, 2)]
    found, page = report(tmp_path, rows)
    assert found["models"]["m2"] | {"mean_words": 0} == {
        "mean": 0.95,
        "low": found["models"]["m2"]["low"],
        "high": found["models"]["m2"]["high"],
        "num_questions": 20,
        "mean_words": 0,
        "num_cut_answers": 0,
        "wins": 19,
        "ties": 0,
        "losses": 1,
    }
    assert 0.6 < found["models"]["m2"]["low"] < 0.95
    assert found["win_matrix"] == {"m2": {"m1": 0.95}, "m1": {"m2": pytest.approx(0.05)}}
    assert found["differences"][0]["is_distinguishable"] and "prefers m2 to m1" in found["findings"][0]
    assert found["position"]["consistency"] == 1.0
    assert "because &lt;b&gt;model_2&lt;/b&gt;" in page and "because <b>" not in page, "texts are escaped"
    assert not re.search(r'(?:src|href)="http', page)


def test_judge_that_always_says_a_makes_ties_not_wins(tmp_path: Path) -> None:
    rows = [row(n, order, "model_1" if order == 1 else "model_2") for n in range(20) for order in (1, 2)]
    found, page = report(tmp_path, rows)
    assert all(one["mean"] == 0.5 and one["ties"] == 20 for one in found["models"].values())
    assert found["position"]["always_first"] == 20 and found["position"]["consistency"] == 0
    assert not found["differences"][0]["is_distinguishable"]
    assert "not distinguishable" in found["findings"][0] and found["findings"][0] in page


def test_half_read_question_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row(n, order, "tie") for n in range(8) for order in (1, 2)]
    rows[0] = row(0, 1, None, status="unreadable")
    rows[1] = row(0, 2, "model_1")
    found, page = report(tmp_path, rows)
    assert found["unscored"] == {"unreadable_judgments": 1, "incomplete_questions": 1}
    assert found["models"]["m1"]["num_questions"] == 7 and found["models"]["m1"]["mean"] == 0.5
    assert "unscored" in page and "unreadable" in page


def test_one_order_only_is_said(tmp_path: Path) -> None:
    found, page = report(tmp_path, [row(n, 1, "model_1") for n in range(8)])
    assert found["position"]["consistency"] is None and "one order only" in page
    assert found["models"]["m1"]["wins"] == 8


def test_three_models(tmp_path: Path) -> None:
    pairs = [(("a", "b"), "model_1"), (("a", "c"), "model_1"), (("b", "c"), "tie")]
    rows = [row(n, order, winner, pair) for n in range(12) for pair, winner in pairs for order in (1, 2)]
    found, page = report(tmp_path, rows)
    assert {name: one["mean"] for name, one in found["models"].items()} == {"a": 1.0, "b": 0.25, "c": 0.25}
    assert [one["is_distinguishable"] for one in found["differences"]] == [True, True, False]
    assert "Bonferroni" in page and len(found["findings"]) == 3


def test_longer_answers_are_counted_by_comparison(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    texts = {"a": "one two three", "b": "one two", "c": "one"}
    write_jsonl(answers, [{"question_id": 1, "model_id": model, "text": text} for model, text in texts.items()])
    winners = [(("a", "b"), "model_1"), (("a", "c"), "model_1"), (("b", "c"), "model_2")]
    rows = [row(1, order, winner, pair) for pair, winner in winners for order in (1, 2)]
    found, page = report(tmp_path, rows, "--answers", str(answers))
    assert found["longer_answer_wins"] == {"share": pytest.approx(2 / 3), "num_comparisons": 3}
    assert "67% of the 3 comparisons" in page


def test_mt_bench_judgments_are_read(tmp_path: Path) -> None:
    base = {"judge": ["gpt-4", "pair-v2"], "turn": 1, "model_1": "m1", "model_2": "m2"}
    base |= {"g1_judgment": "x [[A]]", "g2_judgment": "y [[C]]", "g1_user_prompt": "p", "g2_user_prompt": "q"}
    base |= {"g1_winner": "model_1", "g2_winner": "tie"}
    rows = [{**base, "question_id": n} for n in range(1, 8)] + [{**base, "question_id": 8, "g2_winner": "error"}]
    found, _ = report(tmp_path, rows)
    assert found["models"]["m1"]["mean"] == 0.75 and found["models"]["m1"]["num_questions"] == 7
    assert found["unscored"]["unreadable_judgments"] == 1
    assert found["position"]["tie_in_one_order"] == 7
    single = {"model": "m", "judge": ["gpt-4", "single-v1"], "judgment": "[[7]]", "turn": 1, "user_prompt": "p"}
    found, _ = report(tmp_path, [{**single, "question_id": n, "score": -1 if n == 2 else 7} for n in range(8)])
    assert found["models"]["m"]["mean"] == 7 and found["models"]["m"]["total"] == 49
    assert found["unscored"]["unreadable_judgments"] == 1, "-1 is no score"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no judgments"),
        ([{"question_id": 1}], "judgment 1: not a judgment"),
        ([row(1, 1, "model_1"), row(1, 1, "tie")], "the second by j of question 1"),
        ([row(1, 1, "model_3")], "g1_winner is 'model_3'"),
        ([row(1, 1, "tie", turn=2)], "turn 2"),
        ([row(1, 1, "tie", model_1=3)], "model_1 is '3', which no judgment has"),
        ([row(1, 1, "tie", category=None)], "category is 'None'"),
        ([row(1, 1, "tie", g1_judgment=None)], "g1_judgment is 'None'"),
        ([row(1, 1, "tie", usage="x")], "usage is 'x'"),
        ([row(1, 1, "tie", usage={"usd": "x"})], "usage is "),
        ([row(1, 1, "tie", judge="x")], "judge is 'x'"),
        ([row(1, 1, "tie", judge=[3, 4])], "judge is '[3, 4]'"),
        ([row(1, 1, "tie", cut_answers=3)], "cut_answers is '3'"),
    ],
)
def test_bad_judgments(tmp_path: Path, rows: list[Row], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "j.jsonl", rows)
    assert main(["report", "--judgments", str(tmp_path / "j.jsonl"), "--output", str(tmp_path / "r.html")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


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


@pytest.mark.parametrize("mode", ["pair", "single"])
def test_a_page_is_written_where_no_verdict_can_be_read(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(n, order, None) for n in range(8) for order in (1, 2)]
    if mode == "single":
        base = {"judge": ["j", "s"], "judgment": "I cannot.", "score": None}
        rows = [{**base, "question_id": n, "model": model} for n in range(8) for model in ("m1", "m2")]
    found, page = report(tmp_path, rows)
    assert found["unscored"] == {"unreadable_judgments": 16, "incomplete_questions": 8 if mode == "pair" else 16}
    assert found["findings"][0].startswith("Nothing is scored: 16 of 16 verdicts cannot be read")
    assert found["findings"][0] in page and ">16</td>" in page and page.count("<details>") >= 8
    assert all(one["mean"] is None for one in found["models"].values()) and found["categories"].keys()
    assert "one order only" not in page
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "Nothing is scored" in said.err and "r.html" in said.out


def test_a_pair_named_in_both_ways_is_one_pair(tmp_path: Path) -> None:
    rows = [row(n, 1, "model_1") for n in range(6)]  # m1 stands first and wins
    rows += [row(n, 1, "model_1", ("m2", "m1")) for n in range(6)]  # m2 stands first and wins
    found, _ = report(tmp_path, rows)
    assert len(found["differences"]) == 1 and found["position"]["always_first"] == 6
    assert found["models"]["m1"]["ties"] == 6 and found["models"]["m1"]["num_questions"] == 6


def test_a_question_that_one_judge_did_not_score_is_left_out(tmp_path: Path) -> None:
    def score(question_id: int, model: str, judge: str) -> Row:
        value = None if (question_id, model, judge) == (0, "m1", "harsh") else 2 if judge == "harsh" else 8
        base = {"question_id": question_id, "model": model, "judge": [judge, "s"], "judgment": "x"}
        return {**base, "score": value}

    judges = ("harsh", "mild")
    found, _ = report(
        tmp_path, [score(n, model, judge) for n in range(8) for model in ("m1", "m2") for judge in judges]
    )
    assert found["models"]["m1"]["mean"] == found["models"]["m2"]["mean"] == 5.0, "not 5.4 for want of the harsh judge"
    assert found["models"]["m1"]["num_questions"] == 7 and found["unscored"]["incomplete_questions"] == 1


def test_a_question_without_one_of_the_opponents_is_left_out(tmp_path: Path) -> None:
    pairs = [(("a", "b"), "tie"), (("a", "strong"), "model_2"), (("b", "strong"), "model_2")]
    rows = [row(n, order, winner, pair) for n in range(12) for pair, winner in pairs for order in (1, 2)]
    for one in rows[:36]:
        if (one["model_1"], one["model_2"]) == ("a", "strong"):
            one["g1_winner" if one["order"] == 1 else "g2_winner"] = None
    found, page = report(tmp_path, rows)
    assert found["models"]["a"]["mean"] == found["models"]["b"]["mean"] == 0.25
    assert found["models"]["a"]["num_questions"] == 6 and "strong" in page


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    rows = [row(n, 1, "tie") for n in range(6)] + [row(n, 1, None, ("m1", "m3"), category="odd") for n in range(9, 12)]
    found, page = report(tmp_path, rows)
    assert found["findings"][1] == "m1 and m3: no question has the verdicts to compare them."
    assert found["categories"]["odd"] == {} and "odd" in page


def test_one_model_alone_has_a_finding(tmp_path: Path) -> None:
    base = {"model": "m", "judge": ["j", "s"], "judgment": "x"}
    found, _ = report(tmp_path, [{**base, "question_id": n, "score": 6 + n % 2} for n in range(10)])
    assert found["findings"][0].startswith("The judge gives m 6.50 of 10 (interval 6.")


def test_an_answer_that_is_not_recorded_is_not_the_shorter_one(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    write_jsonl(answers, [{"question_id": n, "model_id": "m1", "text": "many words here"} for n in range(8)])
    found, _ = report(tmp_path, [row(n, 1, "model_1") for n in range(8)], "--answers", str(answers))
    assert found["longer_answer_wins"] is None and found["models"]["m1"]["mean_words"] == 3


def test_files_of_one_name_are_both_named(tmp_path: Path) -> None:
    other = tmp_path / "other" / "j.jsonl"
    write_jsonl(other, [row(9, 1, "tie")])
    found, _ = report(tmp_path, [row(1, 1, "tie")], str(other))
    assert len(found["hashes"]["judgment_files"]) == 2 and found["num_judgments"] == 2


@pytest.mark.parametrize("flags", [("--output", "j.jsonl"), ("--output", "r", "--json", "./r")])
def test_what_was_paid_for_is_not_overwritten(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "j.jsonl", [row(1, 1, "tie")])
    before = (tmp_path / "j.jsonl").read_bytes()
    assert main(["report", "--judgments", str(tmp_path / "j.jsonl"), *flags]) == 2
    assert "name another file" in capsys.readouterr().err
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_load_judgments_gives_both_orders(tmp_path: Path) -> None:
    rows = [row(1, 1, "model_1"), row(1, 2, "tie"), row(1, 1, "tie", repeat=1), row(1, 2, None, repeat=1)]
    write_jsonl(tmp_path / "j.jsonl", rows)
    judgments = load_judgments([tmp_path / "j.jsonl"])
    assert position_counts(judgments) == {"tie_once": 1}, "repeats are kept apart"
    assert summarize(judgments).outcomes["m1", "m2"] == {1: 0.625}, "orders count the same, however many read"
