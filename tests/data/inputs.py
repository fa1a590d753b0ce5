"""Inputs of every kind, some of them bad, for tests of whole runs."""

import gzip
import json
import random
from pathlib import Path

import zstandard

from vicuna.io.jsonl import JsonObject

SMALL_BATCH_BYTES = 6000  # so that little input has many batches


def numbered_row(number: int) -> JsonObject:
    """A conversation. Of many, some ids and texts come twice, some continue another one, some are cut short."""
    letters = random.Random(number % 97)
    texts = [
        f"<p>{' '.join(letters.choices('abcdefghijklmnop', k=60))} <b>!</b></p>"
        if turn % 2
        else f"q{number % 97} {turn}"
        for turn in range(2 * (1 + number % 3))
    ]
    roles = ("human", "gpt")
    turns = [{"from": roles[turn % 2], "value": text} for turn, text in enumerate(texts)]
    return {"id": f"c{number % 150}", "conversations": turns[: -1 if number % 19 == 18 else None]}


def write_inputs(folder: Path, total: int = 240) -> list[Path]:
    """The conversations, in files of every kind, some of them bad."""
    rows = [numbered_row(number) for number in range(total)]
    a, b, c, d = (rows[at : at + total // 4] for at in range(0, total, total // 4))
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in b)
    (folder / "a.json").write_text(json.dumps(a, indent=1))
    (folder / "b.jsonl").write_text(lines + '{"cut": \n')
    (folder / "c.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in c).encode(), mtime=0))
    (folder / "d.json.zst").write_bytes(zstandard.compress(json.dumps(d).encode()))
    (folder / "e.json").write_text(json.dumps(a[:20])[:-40])
    (folder / "empty.jsonl").write_text("")
    return sorted(folder.iterdir())


def split_flags(tokenizer: Path) -> list[object]:
    """Flags that count, split and hold out."""
    counting: list[object] = ["--tokenizer", tokenizer, "--template", "chatml", "--max-tokens", 150]
    return [*counting, "--held-out-ratio", 0.2]
