"""Rows of judgment files, the report on some of them, and the arguments of a judging run."""

import json
from pathlib import Path
from typing import Any

from tests.eval.conftest import Stub
from vicuna.eval.__main__ import main
from vicuna.io.jsonl import write_jsonl

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


def judge_arguments(
    stub: Stub, questions: Path, answers: Path, output: Path, *more: str, mode: str = "pair"
) -> list[str]:
    """The arguments of `vicuna eval judge` that ask the stub."""
    files = ["--questions", str(questions), "--answers", str(answers), "--output", str(output)]
    return ["judge", "--mode", mode, "--judge", "stub", "--base-url", stub.base_url, *files, *more]
