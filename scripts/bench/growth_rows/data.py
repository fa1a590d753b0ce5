"""Rows of the data room: reading, each step by records and by length, deduplication, whole cleanings, and the looks."""

import functools
import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from growth_rows.entry_points import step_names
from growth_rows.inputs import (
    Json,
    conversation,
    pages,
    prose,
    records,
    tokenizer_folder,
    turns,
    write_array,
    write_lines,
)
from growth_rows.measuring import STREAMING_BOUND, Row, Work
from vicuna import cli
from vicuna.data.options import DataOptions
from vicuna.data.pipeline import clean_records, make_pipeline
from vicuna.data.read.record import read_record, read_records
from vicuna.data.read.sources import RawRecord
from vicuna.io.jsonl import format_line

COUNTS = (500, 2_000, 8_000)
CHARACTERS = (20_000, 80_000, 320_000)
TEMPLATE = "vicuna_v1.1"


def rows() -> list[Row]:
    """All rows of the room."""
    steps = [name for name in step_names() if name != "dedup"]
    return [
        *(_reads(ending) for ending in (".json", ".jsonl", ".ndjson", ".parquet", ".gz", ".zst")),
        *(_step_by_records(name) for name in steps),
        *(_step_by_length(name) for name in steps),
        Row("privacy: an address after the other", _addresses, (3_000, 12_000, 48_000), "addresses"),
        Row("split: turns of one record", _split_turns, (500, 2_000, 8_000), "rounds", ("step split",)),
        Row("split: tokens of the budget", _split_budget, (2_048, 8_192, 32_768), "tokens"),
        Row("dedup: ordinary", _dedup(_different), (3_000, 12_000, 48_000), "records", ("step dedup",)),
        Row("dedup: one passage in all", _dedup(_sharing_a_passage), (3_000, 12_000, 48_000), "records"),
        Row("dedup: all equal", _dedup(_equal), (3_000, 12_000, 48_000), "records"),
        Row("dedup: chains of near duplicates", _dedup(_chained), (3_000, 12_000, 48_000), "records"),
        Row("dedup: pieces of one conversation", _dedup(_continued), (3_000, 12_000, 48_000), "records"),
        Row("dedup: length of two records", _dedup_long, (20_000, 80_000, 320_000), "words"),
        Row("clean: all steps, HTML", _clean, (400, 1_600, 6_400), "records", ("verb data",)),
        Row(
            "merge",
            _look("merge", "{records}", "--output", "{room}/merged.jsonl"),
            (2_000, 8_000, 32_000),
            "records",
            ("verb data merge",),
        ),
        _flat("why", "why", "r1", "--in", "{room}/cleaned"),
        _flat("show", "show", "--in", "{room}/cleaned"),
        _flat("stats", "stats", "{records}"),
        _flat("sample", "sample", "{records}", "--count", "10", "--output", "{room}/some.jsonl"),
    ]


def _flat(name: str, *words: str) -> Row:
    return Row(
        name, _look(*words), (2_000, 8_000, 32_000), "records", (f"verb data {name}",), memory_bound=STREAMING_BOUND
    )


# Reading


def _reads(ending: str) -> Row:
    covers = (f"reads {ending}",)
    return Row(
        f"read {ending}",
        functools.partial(_read, ending),
        (2_000, 8_000, 32_000),
        "records",
        covers,
        memory_bound=STREAMING_BOUND,
    )


def _read(ending: str, size: int, room: Path) -> Work:
    path = room / f"input{ending}"
    if ending == ".json":
        write_array(path, records(size))
    elif ending == ".parquet":
        _write_parquet(path, records(size))
    elif ending in (".gz", ".zst"):
        lines = write_lines(room / "lines.jsonl", records(size)).read_bytes()
        path.write_bytes(gzip.compress(lines) if ending == ".gz" else _zstandard(lines))
    else:
        write_lines(path, records(size))

    def work() -> None:
        for _ in read_records(path):
            pass

    return work


def _write_parquet(path: Path, rows: Iterator[Json]) -> None:
    import importlib

    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=1_000)


def _zstandard(data: bytes) -> bytes:
    import zstandard

    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


# Steps


def _options(room: Path, *only: str, **changes: Any) -> DataOptions:
    tokenizer = tokenizer_folder("sentencepiece")
    chosen: Json = {"tokenizer": tokenizer, "template": TEMPLATE, "max_tokens": 2_048, "workers": 1, **changes}
    return DataOptions(inputs=(), output_dir=room / "unused", only=only, **chosen)


def _cleaning(rows: Iterator[Json], options: DataOptions) -> Work:
    pipeline = make_pipeline(options)
    raw = [RawRecord("input.jsonl", n, f"line {n}", format_line(row).encode()) for n, row in enumerate(rows, 1)]
    items = [(read_record(one), one.place) for one in raw]
    # Models and word lists are read when a step runs first, at a cost that does not depend on the size.
    clean_records(items[:1], pipeline)
    return lambda: clean_records(items, pipeline)


def _step_by_records(name: str) -> Row:
    def prepare(size: int, room: Path) -> Work:
        return _cleaning(pages(size) if name == "html" else records(size), _options(room, name))

    return Row(f"step {name}: records", prepare, COUNTS, "records", (f"step {name}",))


def _step_by_length(name: str) -> Row:
    def prepare(size: int, room: Path) -> Work:
        answer = prose(size // 4)
        if name == "html":
            answer = "<p>" + answer.replace("\n\n", "</p><ul><li>one</li><li><b>two</b></li></ul><p>") + "</p>"
            ask = {"from": "human", "value": "Why?"}
            row: Json = {"id": "long", "conversations": [ask, {"from": "gpt", "value": answer}]}
        else:
            ask = {"role": "user", "content": prose(size // 16, 1)}
            row = {"id": "long", "messages": [ask, {"role": "assistant", "content": answer}]}
        return _cleaning(iter([{**row, "id": f"long{n}"} for n in range(8)]), _options(room, name, over_long="cut"))

    return Row(f"step {name}: length of an answer", prepare, CHARACTERS, "characters")


def _addresses(size: int, room: Path) -> Work:
    text = "".join(f"9.8.{number % 200}.7, " for number in range(size))
    return _cleaning(iter([_asked(1, text)]), _options(room, "privacy"))


def _split_turns(size: int, room: Path) -> Work:
    return _cleaning(iter([conversation("one", turns(size))]), _options(room, "split"))


def _split_budget(size: int, room: Path) -> Work:
    row = conversation("one", turns(4_000))
    return _cleaning(iter([row]), _options(room, "split", max_tokens=size))


# Duplicates, through whole cleanings, because they are found where all parts come together


def _dedup(make: Any) -> Any:
    def prepare(size: int, room: Path) -> Work:
        path = write_lines(room / "input.jsonl", make(size))
        return _clean_with(path, room, "--only", "dedup")

    return prepare


def _clean_with(path: Path, room: Path, *more: str) -> Work:
    words = ["data", str(path), "--output-dir", str(room / "cleaned"), "--workers", "1", *more]

    def work() -> None:
        status = cli.main(words)
        assert status == 0, f"vicuna {' '.join(words)} ended with {status}"

    return work


def _asked(number: int, text: str) -> Json:
    messages = [{"role": "user", "content": f"Question {number}"}, {"role": "assistant", "content": text}]
    return {"id": f"r{number}", "messages": messages}


def _different(count: int) -> Iterator[Json]:
    for number in range(count):
        draw = random.Random(number)
        yield _asked(number, " ".join(f"w{draw.randrange(10**7)}" for _ in range(40)))


def _sharing_a_passage(count: int) -> Iterator[Json]:
    passage = prose(60, 7)
    for row in _different(count):
        row["messages"][1]["content"] = f"{passage} {row['messages'][1]['content']}"
        yield row


def _equal(count: int) -> Iterator[Json]:
    text = prose(100, 3)
    for number in range(count):
        row = _asked(number, text)
        row["messages"][0]["content"] = "The same question"
        yield row


def _chained(count: int) -> Iterator[Json]:
    """Each one word further than the one before, so that neighbours are near duplicates and distant ones are not."""
    draw = random.Random(1)
    words = [f"w{draw.randrange(10**7)}" for _ in range(count + 60)]
    for number in range(count):
        row = _asked(number, " ".join(words[number : number + 60]))
        row["messages"][0]["content"] = "The same question"
        yield row


def _continued(count: int) -> Iterator[Json]:
    """Conversations of which each is the beginning of the next, eight rounds at the most."""
    for number in range(count):
        yield conversation(f"r{number}", turns(1 + number % 8, 12, seed=number // 8))


def _dedup_long(size: int, room: Path) -> Work:
    text = prose(size, 9)
    rows = [_asked(1, text), _asked(2, f"{text} and more")]
    return _clean_with(write_lines(room / "input.jsonl", rows), room, "--only", "dedup")


# Whole commands


def _clean(size: int, room: Path) -> Work:
    path = write_array(room / "input.json", pages(size))
    options = ("--tokenizer", str(tokenizer_folder("sentencepiece")), "--template", TEMPLATE, "--max-tokens", "2048")
    return _clean_with(path, room, *options)


def _look(*words: str) -> Any:
    def prepare(size: int, room: Path) -> Work:
        path = write_lines(room / "input.jsonl", records(size))
        if "--in" in words:
            _clean_with(path, room, "--only", "noise")()
        command = ["data", *(word.format(records=path, room=room) for word in words)]

        def work() -> None:
            assert cli.main(command) == 0, " ".join(command)

        return work

    return prepare
