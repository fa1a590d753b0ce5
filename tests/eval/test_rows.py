"""Lines of files that may be anybody's: whatever is in them is an object or one line of error, and nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.eval.builders import row as judgment
from vicuna.errors import VicunaError
from vicuna.eval import rows
from vicuna.eval.__main__ import main
from vicuna.eval.answer import load_answers
from vicuna.eval.questions import load_questions
from vicuna.eval.reporting.reading import load_judgments
from vicuna.eval.rows import Place, RowReader, is_amount, read_rows


def test_rows_and_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": 1}\n\n{"b": "é"}\r\n{"c": 3}'.encode())
    found = list(read_rows(path, file=4))
    assert [(one.number, one.value) for one in found] == [(1, {"a": 1}), (2, {"b": "é"}), (3, {"c": 3})]
    assert found[0].place == Place(4, 0, 12) and found[2].place == Place(4, 26, 8)
    with RowReader([path]) as again:
        for one in reversed(found):
            assert again.read(one.place._replace(file=0)) == one.value
    assert [one.value for one in read_rows(path, end=13)] == [{"a": 1}]
    with pytest.raises(VicunaError, match="changed while it was read"), RowReader([path]) as again:
        again.read(Place(0, 30, 20))


def test_a_line_above_the_limit_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 10_000)
    with pytest.raises(VicunaError, match=r"a\.jsonl:2: a line of more than 1,000 bytes, the limit"):
        list(read_rows(path))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "1", None, [], 10**20])
def test_what_is_no_amount(value: object) -> None:
    assert not is_amount(value) and is_amount(0) and is_amount(0.5)


LOADERS: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "questions": (load_questions, {"question_id": 1, "text": "why", "category": "c"}),
    "answers": (lambda path: load_answers([path]), {"question_id": 1, "model_id": "m", "text": "so"}),
    "judgments": (lambda path: load_judgments([path]), judgment(1, 1, "tie")),
}
DAMAGES: dict[str, Any] = {
    "not JSON": b'{"question_id": 1, ',
    "no object": b"[1]",
    "no UTF-8": b'{"a": "\xff"}',
    "nested": b'{"a":' * 100_000,
    "brackets": b"[" * 100_000,
    "digits": b'{"question_id": ' + b"9" * 5000 + b"}",
    "NUL": b"\x00" * 100,
    "id is a dict": {"question_id": {"a": 1}},
    "id is a list": {"question_id": []},
    "id is NaN": {"question_id": float("nan")},
    "id is true": {"question_id": True},
    "id is a fraction": {"question_id": 1.5},
    "id is long": {"question_id": "x" * 10_000_000},
    "id is huge": {"question_id": 10**100},
    "id is missing": {"question_id": None},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", LOADERS)
def test_damaged_rows_are_one_line(kind: str, damage: str, tmp_path: Path) -> None:
    load, good = LOADERS[kind]
    bad = DAMAGES[damage]
    line = bad if isinstance(bad, bytes) else json.dumps({**good, **bad}).encode()
    path = tmp_path / "in.jsonl"
    path.write_bytes(json.dumps({**good, "question_id": 2}).encode() + b"\n" + line + b"\n")
    with pytest.raises(VicunaError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"model_1": {}},
        {"model_1": "x" * 501},
        {"category": ["a"]},
        {"category": "x" * 501},
        {"judge": {"a": 1}},
        {"judge": []},
        {"judge": ["x" * 501, "p"]},
        {"usage": {"prompt_tokens": float("nan")}},
        {"usage": {"usd": float("inf")}},
        {"usage": {"completion_tokens": -5}},
        {"usage": {"usd": {"a": 1}}},
        {"g1_winner": {"a": 1}},
        {"g1_winner": ["model_1"]},
        {"g1_user_prompt": 5},
        {"first_reply": [1]},
        {"cut_answers": [{"a": 1}]},
        {"cut_answers": [["m1"]]},
        {"repeat": True},
        {"turn": [1]},
        {"prompt_hash": {}},
        {"question_hash": 3},
    ],
)
def test_judgments_with_wrong_fields_are_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**judgment(1, 1, "tie"), **change}) + "\n")
    with pytest.raises(VicunaError) as caught:
        load_judgments([path])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_half_surrogate_pairs_and_long_texts_are_reported(tmp_path: Path) -> None:
    rows = [judgment(1, order, "tie", category="\ud800", g1_judgment="y" * 10_000_000) for order in (1, 2)]
    rows = [{**one, "question_id": "\udc80"} for one in rows]
    (tmp_path / "j.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert main(["report", "--judgments", str(tmp_path / "j.jsonl"), "--output", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").stat().st_size < 200_000
