"""From recorded judgments to figures and a page."""

from pathlib import Path

import pytest

from tests.eval.builders import Row, report, row
from vicuna.eval.__main__ import main
from vicuna.io.jsonl import write_jsonl


def test_one_order_only_is_said(tmp_path: Path) -> None:
    found, page = report(tmp_path, [row(n, 1, "model_1") for n in range(8)])
    assert found["position"]["consistency"] is None and "one order only" in page
    assert found["models"]["m1"]["wins"] == 8


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
