"""The figures of a report: findings, lengths, comparisons."""

import re
from pathlib import Path

import pytest

from tests.eval.builders import report, row
from vicuna.io.jsonl import write_jsonl


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
