"""Judgments to points by question: what counts, and what is left out."""

from pathlib import Path

from tests.eval.builders import Row, report, row
from vicuna.eval.reporting.reading import load_judgments
from vicuna.eval.reporting.score import position_counts, summarize
from vicuna.io.jsonl import write_jsonl


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


def test_load_judgments_gives_both_orders(tmp_path: Path) -> None:
    rows = [row(1, 1, "model_1"), row(1, 2, "tie"), row(1, 1, "tie", repeat=1), row(1, 2, None, repeat=1)]
    write_jsonl(tmp_path / "j.jsonl", rows)
    judgments = load_judgments([tmp_path / "j.jsonl"])
    assert position_counts(judgments) == {"tie_once": 1}, "repeats are kept apart"
    assert summarize(judgments).outcomes["m1", "m2"] == {1: 0.625}, "orders count the same, however many read"
