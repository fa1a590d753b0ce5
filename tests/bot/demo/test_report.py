"""The demo's page shows the figures of every stage, and texts are escaped."""

import html
from pathlib import Path
from typing import Any

import pytest

from vicuna.bot.demo.report import write_page
from vicuna.bot.stages import Done, Stage, Workspace
from vicuna.eval.questions import load_questions
from vicuna.io.jsonl import write_json, write_jsonl
from vicuna.material import material

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
    answers = [{"question_id": 7, "model_id": model, "text": f"<i>{model}</i>"} for model in ("vicuna", "smollm2")]
    write_jsonl(tmp_path / "eval" / "answers.jsonl", answers)
    talk = [("user", "Who <are> you?"), ("assistant", "I am Vicuna."), ("user", "And?"), ("assistant", "A bot.")]
    messages = [{"role": role, "content": content} for role, content in talk]
    write_jsonl(tmp_path / "data" / "records.jsonl", [{"id": "a", "messages": messages}])
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
        "&lt;i&gt;vicuna&lt;/i&gt;",
        "2 training steps give a model a name",
        "Who &lt;are&gt; you?",
        "<mark>I am Vicuna.&lt;|im_end|&gt;",
        "3.0 GiB",
        "<svg></svg>",
    ):
        assert text in page


def test_a_real_judge_is_no_stand_in(workspace: Workspace, tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", workspace, judge="judge", peak_bytes=0)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "stand-in" not in page and "Peak memory" not in page


def test_the_page_opens_with_what_changed_and_shows_every_question(workspace: Workspace, tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", workspace, judge=None, peak_bytes=0)
    page = (tmp_path / "index.html").read_text("utf-8")
    places = [page.index(text) for text in ("Before and after", "What was done", "Shared conversations", "Fine-tuned")]
    assert places == sorted(places)
    question = next(one for one in load_questions(material("eval/questions.jsonl")) if one.question_id == 7)
    assert f"<summary>{question.category}: {html.escape(question.text, quote=False)[:20]}" in page
    assert page.index("smollm2 (base)") < page.index("vicuna (tuned)")
