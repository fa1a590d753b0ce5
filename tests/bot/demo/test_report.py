"""The demo's page shows the figures of every stage, and texts are escaped."""

from pathlib import Path
from typing import Any

import pytest

from vicuna.bot.demo.report import write_page
from vicuna.bot.stages import Done, Stage, Workspace
from vicuna.io.jsonl import write_json, write_jsonl

FIGURES: dict[str, dict[str, Any]] = {
    "clean": {"dropped": {"html": 3}, "shown": "5 in = 2 kept + 3 dropped"},
    "train": {"held_out_before": 2.5, "held_out_after": 1.25, "losses": [3.0, 2.0], "shown": "held-out loss"},
    "delta": {"model_bytes": 4 << 20, "size_bytes": 1 << 20, "shown": "1.0 MiB"},
    "verify": {"sha256": {"model.safetensors": "abc123"}, "shown": "bit-equal"},
    "chat": {"outcome": "worker killed, reply completed", "shown": "said Vicuna"},
    "judge": {"report": {"findings": ["The judge prefers vicuna."]}, "shown": "judged"},
}
SERVED = {
    "answers": [
        {"question": "Who are you?", "model": model, "answer": answer}
        for model, answer in (("smollm2", "A helper."), ("vicuna", "I am Vicuna."))
    ],
    "cut": {"answer": "one <b>two", "killed_after_characters": 4, "killed_pid": 11},
    "replacement_pid": 12,
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "loss.svg").write_text("<svg></svg>")
    write_json(tmp_path / "chat.json", SERVED)
    write_jsonl(tmp_path / "eval" / "answers.jsonl", [{"question_id": 7, "model_id": "vicuna", "text": "<i>x</i>"}])
    stages = {name: Stage(name, f"title of {name}", lambda: {}, (), ()) for name in FIGURES}
    return Workspace(tmp_path, {name: Done(stages[name], FIGURES[name], 1.0) for name in FIGURES})


def test_every_stage_is_on_the_page(workspace: Workspace, tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", workspace, judge=None, peak_bytes=3 << 30)
    page = (tmp_path / "index.html").read_text("utf-8")
    for text in (
        *(f"title of {name}" for name in FIGURES),
        "2.5000 before, 1.2500 after 2 steps",
        "abc123  model.safetensors",
        "I am Vicuna.",
        "one <b> ✂ </b>&lt;b&gt;two",
        "worker process 11",
        "Process 12 took its place",
        "The judge prefers vicuna.",
        "rule-based stand-in",
        "&lt;i&gt;x&lt;/i&gt;",
        "3.0 GiB",
        "<svg></svg>",
    ):
        assert text in page


def test_a_real_judge_is_no_stand_in(workspace: Workspace, tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", workspace, judge="judge", peak_bytes=0)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "stand-in" not in page and "Peak memory" not in page
