"""Inputs and tokenizer flags that several tests of whole runs share."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.builders import digest, run_command, sharegpt_row, write_lines
from tests.data.inputs import SMALL_BATCH_BYTES, split_flags, write_inputs
from vicuna.data import __main__ as program
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.run import batches
from vicuna.io.jsonl import read_json


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Some good conversations, and one for each outcome."""
    rows: list[Any] = [
        sharegpt_row(f"good-{n}", f"q{n}", f"<p>r{n} <b>!</b></p>", "more", "<p>s</p>") for n in range(40)
    ]
    rows += [
        sharegpt_row("again", "q0", "r0 **!**", "more", "s"),
        sharegpt_row("good-1", "the same id", "another text"),
        sharegpt_row("empty"),
        sharegpt_row("error", "q", "Too many requests in 1 hour. Try again later."),
        sharegpt_row("cut", "q", "a good answer", "and?", ""),
        sharegpt_row("long", *(word for n in range(9) for word in (f"question {n}", "answer " * 30))),
        {"id": "odd", "turns": []},
        "no record",
    ]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


@pytest.fixture
def counting(bpe_tokenizer_directory: Path) -> list[str]:
    return ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "200"]


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A word list of the user's own."""
    return write_lines(tmp_path / "own.txt", "# mine", "", "  computer   SAYS  no")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of every kind, read in small batches."""
    monkeypatch.setattr(batches, "BATCH_BYTES", SMALL_BATCH_BYTES)
    monkeypatch.setattr(program, "BATCH_BYTES", SMALL_BATCH_BYTES)
    return write_inputs(tmp_path / "in")


@pytest.fixture
def expected(tmp_path: Path, inputs: list[Path], bpe_tokenizer_directory: Path) -> dict[str, str]:
    """What one process makes of the inputs in their order."""
    out = tmp_path / "expected"
    assert (
        run_command(*inputs, "--output-dir", out, "--workers", 1, *split_flags(bpe_tokenizer_directory))
        == EXIT_SET_ASIDE
    )
    counts = read_json(out / "manifest.json")["counts"]
    assert counts["records_in"] == 262 and counts["set_aside"] == 3
    assert counts["merged"] > 50 and counts["split"] > 10 and counts["held_out"] > 10 and counts["repaired"]
    assert {"duplicate", "continued", "malformed"} <= counts["rules"].keys()
    return digest(out)
