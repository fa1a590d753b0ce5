"""A question with its answers and verdicts, in words and as markup."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.eval.builders import report, row
from vicuna.eval.__main__ import main
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.reporting import browser
from vicuna.eval.reporting.browser import MAX_CHARS_SHOWN, outcome, question_block, verdict_words
from vicuna.eval.reporting.reading import Sources, read_judgments
from vicuna.eval.reporting.score import Results, summarize
from vicuna.io.jsonl import write_jsonl


def results(*winners: str | None) -> Results:
    """Question 1, judged in the first order and in the swapped one."""
    rows = [row(1, order, winner) for order, winner in enumerate(winners, 1)]
    return summarize([one for each in rows for one in Judgment.from_row(each, "row")])


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        (("model_1", "model_1"), "m1 wins"),
        (("model_1", "tie"), "m1 wins narrowly"),
        (("model_1", "model_2"), "tie"),
        (("model_1", None), "unscored"),
    ],
)
def test_outcome_in_words(winners: tuple[str | None, ...], expected: str) -> None:
    assert outcome(1, results(*winners)) == expected


def test_verdict_in_words() -> None:
    words = [verdict_words(one) for one in results("model_1", "model_2").judgments]
    assert words == ["m1", "m2"]
    assert [verdict_words(one) for one in results("tie", None).judgments] == ["tie", "unreadable"]
    single = {"question_id": 1, "model": "m", "judge": ["j", "s"], "judgment": "x", "score": 7.5}
    assert [verdict_words(one) for one in Judgment.from_row(single, "row")] == ["7.5 of 10"]


def test_a_text_is_taken_from_the_answer_file_where_the_prompt_is_not_recorded(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "j.jsonl", [row(1, 1, "tie"), row(1, 2, "tie")])
    write_jsonl(tmp_path / "a.jsonl", [{"model_id": "m1", "question_id": 1, "text": "<b>mine</b>"}])
    judgments, texts = read_judgments([tmp_path / "j.jsonl"])
    texts.add_answers([tmp_path / "a.jsonl"], judgments)
    assert texts.words() == {"m1": {1: 1}, "m2": {}}
    with Sources([tmp_path / "j.jsonl"], [tmp_path / "a.jsonl"], texts) as sources:
        block = question_block(1, summarize(judgments), sources)
    assert "&lt;b&gt;mine&lt;/b&gt;" in block and "<b>" not in block
    assert block.count("not recorded; give the answer file") == 1, "of m2"
    assert block.startswith("<details>\n<summary>1 · math · tie</summary>")


def many(tmp_path: Path, num_questions: int, **more: Any) -> str:
    return report(tmp_path, [row(n, order, "tie", **more) for n in range(num_questions) for order in (1, 2)])[1]


def test_few_questions_stand_on_the_page(tmp_path: Path) -> None:
    assert many(tmp_path, 200).count("<summary>") == 200
    assert not (tmp_path / "r_questions").exists()


def test_many_questions_stand_in_pieces_beside_the_page(tmp_path: Path) -> None:
    page = many(tmp_path, 201)
    links = re.findall(r'href="([^"]*)"', page)
    assert links == [f"./r_questions/questions-0000{n}.html" for n in (1, 2, 3)] and "<summary>" not in page
    assert "<script" not in page and "keep the two together" in page
    pieces = [(tmp_path / link).read_text("utf-8") for link in links]
    assert [piece.count("<summary>") for piece in pieces] == [100, 100, 1]
    for piece, link in zip(pieces, links, strict=True):
        targets = set(re.findall(r'href="([^"]*)"', piece))
        assert "../r.html" in targets and all(((tmp_path / link).parent / target).exists() for target in targets)
    assert "because &lt;b&gt;tie&lt;/b&gt;" in pieces[2]


def test_pieces_end_at_a_size_and_one_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    read = Sources.with_texts
    monkeypatch.setattr(browser, "BYTES_PER_PIECE", 20_000)

    def counted(self: Sources, some: Sequence[Judgment]) -> list[Judgment]:
        held.append(len(some))
        return read(self, some)

    monkeypatch.setattr(Sources, "with_texts", counted)
    many(tmp_path, 201, g1_user_prompt="x" * 9000)
    assert len(list((tmp_path / "r_questions").iterdir())) >= 100
    assert held == [2] * 201, "each judgment is read once, with its question"


def test_a_folder_of_others_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many(tmp_path, 201)
    many(tmp_path, 201)  # our own pieces are replaced
    (tmp_path / "r_questions" / "mine.txt").write_text("x")
    with pytest.raises(AssertionError):
        many(tmp_path, 201)
    assert "holds something else than pieces" in capsys.readouterr().err
    assert (tmp_path / "r_questions" / "mine.txt").exists()


def test_a_long_text_is_cut_on_the_page(tmp_path: Path) -> None:
    page = many(tmp_path, 1, g1_judgment="y" * (MAX_CHARS_SHOWN + 7))
    assert "[7 more characters are in the files]" in page and len(page) < MAX_CHARS_SHOWN + 30_000


def test_a_link_cannot_be_another_address(tmp_path: Path) -> None:
    rows = [row(n, 1, "tie") for n in range(201)]
    write_jsonl(tmp_path / "j.jsonl", rows)
    name = 'javascript:alert(1)"><b>.html'
    assert main(["report", "--judgments", str(tmp_path / "j.jsonl"), "--output", str(tmp_path / name)]) == 0
    for link in re.findall(r'href="([^"]*)"', (tmp_path / name).read_text("utf-8")):
        assert re.fullmatch(r"\./[\w%.-]+/questions-\d{5}\.html", link)
