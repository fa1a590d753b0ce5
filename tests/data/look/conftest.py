"""Results of cleanings that several tests look at."""

from pathlib import Path

import pytest

from tests.data.builders import messages_row
from tests.data.look.builders import clean
from vicuna.data.__main__ import main
from vicuna.io.jsonl import write_jsonl

LONG = "Ein Satz, der zeigt, dass diese Antwort auf Deutsch geschrieben ist und einen Sinn hat."


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return clean(tmp_path, "many", [messages_row(f"r{number}", f"question {number}", "answer") for number in range(40)])


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory, bpe_tokenizer_directory: Path) -> Path:
    folder = tmp_path_factory.mktemp("report")
    rows = [messages_row(f"good-{number}", f"Question number {number}?", "Forty-two.") for number in range(6)]
    rows += [messages_row(f"copy-{number}", "Question number 0?", "Forty-two.") for number in range(7)]
    rows += [
        messages_row("again", "Question number 1?", "Forty-two."),
        messages_row("german", LONG, LONG),
        messages_row("error", "q", "Too many requests in 1 hour. Try again later."),
        messages_row("<script>", "", "nothing"),
        messages_row("mail", "Write to joe.smith@gmail.com, anna@web.de!", "Done."),
        messages_row("long", *(text for at in range(6) for text in (f"Round {at}?", f"Answer {at}. " * 12))),
        messages_row("too-long", "Why?", "because " * 300),
    ]
    write_jsonl(folder / "in.jsonl", rows)
    argv = [str(folder / "in.jsonl"), "--output-dir", str(folder / "out"), "--workers", "1", "--carry-over", "1"]
    argv += ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "250"]
    assert main([*argv, "--skip-languages", "de", "--near-duplicates", "0"]) == 0
    return folder / "out"
