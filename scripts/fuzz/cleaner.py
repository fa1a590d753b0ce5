"""Fuzzes what strangers' files reach first: the walker over a page's HTML, and the reader of input files.

`tests/data/html/test_round_trip.py` and `tests/data/read/test_sources.py` hold the properties for every run; this hunts
for longer, guided by coverage. It needs atheris (`pip install atheris`; Linux and macOS), and stops at the first
finding with the input that shows it:

    .venv/bin/python scripts/fuzz/cleaner.py walker -max_total_time=600
    .venv/bin/python scripts/fuzz/cleaner.py reader -max_total_time=600 CORPUS_FOLDER
"""

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["vicuna.data"]):
    from vicuna.data.html.walker import HtmlError, is_page, looks_like_html, page_text, to_markdown
    from vicuna.data.read.record import Malformed, read_record
    from vicuna.data.read.sources import raw_records
    from vicuna.data.step_kinds import Record

SECONDS_PER_BYTE = 1e-4  # far above what any input needs, far below what a quadratic way takes on a long one
WORDS = (
    *("<p>", "</p>", "<div>", "<pre>", "<code class='hljs'>", "</code>", "<ul><li>", "<ol start=7>", "<table><tr><td>"),
    *(
        "<span class='katex'>",
        "<annotation encoding='application/x-tex'>",
        "<b>",
        "<em>",
        "<a href='x'>",
        "<br>",
        "<img",
    ),
    *(
        "<blockquote>",
        "<h2>",
        "&lt;",
        "&amp;amp;",
        "\\",
        "`",
        "```",
        "*",
        "_",
        "~~",
        "](",
        "[x]:",
        "|",
        "1. ",
        "- ",
        "\n",
    ),
)


def walker(data: bytes) -> None:
    """Any bytes are a page: it is read or refused, in time that grows with it, and gives text that UTF-8 can hold."""
    source = atheris.FuzzedDataProvider(data)
    text = "".join(
        WORDS[source.ConsumeIntInRange(0, len(WORDS) - 1)]
        if source.ConsumeBool()
        else source.ConsumeUnicodeNoSurrogates(source.ConsumeIntInRange(0, 12))
        for _ in range(source.ConsumeIntInRange(0, 60))
    )
    started = time.process_time()
    looks_like_html(text)
    try:
        markdown = to_markdown(text)
        if is_page(text):
            page_text(text).encode("utf-8")
    except HtmlError:
        return
    markdown.encode("utf-8")
    assert time.process_time() - started < 1 + SECONDS_PER_BYTE * len(text)


def reader(data: bytes) -> None:
    """Any bytes are a file: each of its records is one, or set aside with a place and a reason; nothing is raised."""
    kind, data = data[:1], data[1:]
    if kind < b"\x40":  # as it is, as records in an array, as lines, packed
        data = b"[" + data + b"]"
    elif kind < b"\x80":
        data = b'{"conversations": [{"from": "human", "value": ' + data + b"}]}\n" + data
    elif kind < b"\xa0":
        data = gzip.compress(data)[: len(data) + 10]
    FILE.write_bytes(data)
    for number, raw in enumerate(raw_records(FILE), 1):
        assert raw.number == number and raw.place and (raw.data or raw.problem)
        record = read_record(raw)
        if isinstance(record, Malformed):
            assert record.reason
            record.reason.encode("utf-8")
        else:
            assert isinstance(record, Record)
            json.dumps(record.to_row(), ensure_ascii=False).encode("utf-8", "surrogatepass")
        record.id.encode("utf-8")


TARGETS: dict[str, Callable[[bytes], None]] = {"walker": walker, "reader": reader}


def main() -> int:
    """Fuzz one of the two until it breaks or the time is up."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(f"usage: {sys.argv[0]} {'|'.join(TARGETS)} [libFuzzer flags] [CORPUS_FOLDER]", file=sys.stderr)
        return 2
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FILE = Path(folder) / "input"
        sys.exit(main())
