"""The steps as the options choose them, failures in them, and which conversations are held out."""

import json
from pathlib import Path

import pytest

from tests.data.builders import default_step, kept, messages_row, record, run_command, sharegpt_row
from tests.data.look.builders import clean
from vicuna.data import pipeline
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.pipeline import is_held_out
from vicuna.data.run.batches import forget_pipeline
from vicuna.data.step_kinds import Keep, Outcome, Record, Step
from vicuna.errors import VicunaError
from vicuna.io.jsonl import read_json, read_jsonl


def broken_step(rule: Exception) -> Step:
    def step(record: Record) -> Outcome:
        if record.id == "c7":
            raise rule
        return Keep(record)

    return Step("noise", 1, {}, step)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), AssertionError("odd"), VicunaError("no")]
)
def test_a_record_that_a_step_fails_on_is_set_aside(
    tmp_path: Path,
    inputs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    monkeypatch.setattr(pipeline, "noise_step", lambda _: broken_step(error))
    forget_pipeline()
    out = tmp_path / "out"
    try:
        assert run_command(inputs[0], "--output-dir", out, "--strict", "--workers", 1) == 1
        assert "a.json:8: crashed (noise): byte " in capsys.readouterr().err
        assert run_command(inputs[0], "--output-dir", out, "--workers", 1) == EXIT_SET_ASIDE
    finally:
        forget_pipeline()
    (row,) = (row for row in read_jsonl(out / "dropped.jsonl") if row["rule"] == "crashed")
    assert (row["id"], row["step"], row["source"]) == ("c7", "noise", "a.json:8")
    assert type(error).__name__ in row["evidence"] and row["evidence"].startswith("byte ")
    assert read_json(out / "manifest.json")["counts"]["set_aside"] == 1
    assert "crashed: 1" in (out / "report.html").read_text()
    assert run_command("why", "c7", "--in", out) == 0
    assert "dropped by noise, crashed" in capsys.readouterr().out


def test_only_and_skip_choose_the_steps(tmp_path: Path, inputs: list[Path]) -> None:
    def steps(*arguments: object) -> list[str]:
        assert run_command(inputs[0], "--output-dir", tmp_path / "out", *arguments) == 0
        return [step["name"] for step in read_json(tmp_path / "out" / "manifest.json")["steps"]]

    everything = steps()
    assert steps("--only", "html") == ["read", "html"]
    rows = list(read_jsonl(tmp_path / "out" / "records.jsonl"))
    assert len(rows) == 60 and len({row["id"] for row in rows}) == 60
    assert rows[18]["messages"][-1]["role"] == "user" and "**!**" in rows[0]["messages"][1]["content"]
    assert steps("--only", "dedup", "html") == ["read", "html", "dedup"]
    assert steps("--skip", "dedup", "roles") == [name for name in everything if name not in ("dedup", "roles")]


def test_pieces_of_one_conversation_stay_on_one_side(tmp_path: Path, counting: list[str]) -> None:
    texts = [word for n in range(9) for word in (f"question {n}", "answer " * 30)]
    rows = [sharegpt_row(f"c{n}", f"hello {n}", *texts[1:]) for n in range(30)]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows), "utf-8")
    counting += ["--near-duplicates", "0"]
    assert run_command(path, "--output-dir", tmp_path / "out", *counting, "--held-out-ratio", 0.4) == 0
    sides = [
        {row["original_id"] for row in read_jsonl(tmp_path / "out" / name)}
        for name in ("records.jsonl", "held_out.jsonl")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    # Cleaned records cleaned again keep their side.
    again = tmp_path / "again"
    assert run_command(tmp_path / "out" / "held_out.jsonl", "--output-dir", again, "--held-out-ratio", 0.4) == 1
    assert read_json(again / "manifest.json")["counts"]["records_out"] == 0


def test_the_held_out_share_is_about_the_ratio() -> None:
    share = sum(is_held_out(f"id-{n}", 0.1) for n in range(5000)) / 5000
    assert 0.085 < share < 0.115
    assert not any(is_held_out(f"id-{n}", 0.0) for n in range(100))


def test_pieces_that_an_earlier_tool_cut_stay_together() -> None:
    for name in ("QWJhYvA", "03iMgaN", "2pwdGxJ"):
        assert len({is_held_out(f"{name}_{n}", 0.5) for n in range(50)}) == 1


def test_pieces_of_one_conversation_are_never_on_both_sides(tmp_path: Path, bpe_tokenizer_directory: Path) -> None:
    rows = [
        messages_row(f"r{number}", *(f"{number} words words words {at}" for at in range(12))) for number in range(40)
    ]
    flags = ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "120"]
    folder = clean(tmp_path, "cut", rows, *flags, "--carry-over", "1", "--held-out-ratio", "0.3")
    train, held_out = (
        [item["original_id"] for item in read_jsonl(folder / f"{name}.jsonl")] for name in ("records", "held_out")
    )
    assert len(held_out) > len(set(held_out)) > 3  # several conversations, in pieces
    assert len(train) > len(set(train)) > 3
    assert not set(train) & set(held_out)


NAMES = ("html", "noise", "roles", "empty", "errors", "refusals", "blocked")


def through_all(given: Record) -> Outcome:
    outcome: Outcome = Keep(given)
    for name in NAMES:
        assert isinstance(outcome, Keep)
        outcome = default_step(name).run(outcome.record)
    return outcome


@pytest.mark.parametrize(
    "answer",
    [
        "Network error handling in Go takes three lines.",
        "Access denied\n\nis what the page says when the cookie is missing.\n\nSet it.",
        "HTTP 429 means: too many requests in a short time.",
        "Your code catches it:\n\n```\nNetwork error\n```",
        "I'm sorry to hear that. Here is what helps.",
        "I'm sorry, but I cannot provide a date. " + "But here is what is known. " * 30,
        "OpenAI trained GPT-4; nobody says that I am one of them.",
        "It prints `I am ChatGPT` on the screen.",
        "I am Claude Monet, and I paint what I see.",
        "I am Vicuna, not ChatGPT, and I was not made by OpenAI.",
    ],
)
def test_good_answers_that_look_bad_stay(answer: str) -> None:
    assert kept(through_all(record("u: q", f"a: {answer}", shape="messages"))) == ["u: q", f"a: {answer.strip()}"]
