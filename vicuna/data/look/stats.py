"""`vicuna data stats INPUT...`: how many records there are, how long, and in which languages; a table or JSON."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vicuna.conversation import CountTokens, get_template, load_token_counter
from vicuna.data.look.collection import StoredRecord, UnreadableRecord, files_of, read_all
from vicuna.data.pipeline import conversation_of
from vicuna.errors import UsageError, VicunaError
from vicuna.io import log
from vicuna.io.jsonl import JsonObject
from vicuna.io.terminal import MAX_CELL_CHARACTERS, Line, printable, style, write, write_json
from vicuna.options import option, parse
from vicuna.weights.resolve import NAMES, resolve_model

QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
NUM_LANGUAGES = 12  # in the table; JSON has all


@dataclass(frozen=True)
class StatsOptions:
    """`vicuna data stats` options."""

    inputs: tuple[Path, ...] = option(
        help="folders of cleanings, or files of conversations", positional=True, metavar="INPUT"
    )
    tokenizer: Path | None = option(
        None, help=f"{NAMES}: count tokens with its tokenizer; otherwise the records' own num_tokens are taken"
    )
    template: str | None = option(None, help="conversation template, for counting tokens")
    json: bool = option(False, help="print JSON instead of a table")


def main(argv: list[str]) -> int:
    """Print the figures on stdout."""
    options = parse(StatsOptions, argv, prog="vicuna data stats", description="Describe records in figures.")
    stats = Stats(_counter(options))
    with log.Progress(None, description="reading", unit="records") as progress:
        for item in read_all(files_of(options.inputs)):
            stats.add(item)
            progress.update()
    if not stats.num_records:
        raise VicunaError(f"no record can be read; the first: {stats.first_problem}")
    figures = stats.to_dict()
    if options.json:
        write_json(figures, indent=2, is_ascii=False)
    else:
        write(*table(figures))
    if stats.num_unreadable:
        log.warning(f"{stats.num_unreadable:,} could not be read; the first: {stats.first_problem}")
    return 0


@dataclass
class Stats:
    """Figures of the records added so far. It keeps a few numbers for each."""

    count_tokens: CountTokens | None = None
    num_records: int = 0
    num_unreadable: int = 0
    first_problem: str = "the files are empty"
    roles: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    conversations: set[int] = field(default_factory=set)
    lengths: "dict[str, array[int]]" = field(
        default_factory=lambda: {name: array("q") for name in ("messages", "rounds", "characters", "tokens")}
    )

    def add(self, item: StoredRecord | UnreadableRecord) -> None:
        """Count one record."""
        if isinstance(item, UnreadableRecord):
            if not self.num_unreadable:
                self.first_problem = f"{item.place}: {item.reason}"
            self.num_unreadable += 1
            return
        messages = item.conversation.messages
        self.num_records += 1
        self.roles.update(message.role for message in messages)
        self.languages[str(item.row.get("language") or "unknown")] += 1
        self.conversations.add(hash(conversation_of(item.original_id)))
        self.lengths["messages"].append(len(messages))
        self.lengths["rounds"].append(sum(message.role == "user" for message in messages))
        self.lengths["characters"].append(sum(len(message.content) for message in messages))
        if self.count_tokens is not None:
            self.lengths["tokens"].append(self.count_tokens(messages))
        elif isinstance(number := item.row.get("num_tokens"), int):
            self.lengths["tokens"].append(number)

    def to_dict(self) -> JsonObject:
        """The figures, as `--json` prints them."""
        return {
            "records": self.num_records,
            "conversations": len(self.conversations),
            "unreadable": self.num_unreadable,
            "messages_by_role": dict(self.roles.most_common()),
            "languages": dict(sorted(self.languages.items(), key=lambda item: (-item[1], item[0]))),
            "lengths": {name: describe_numbers(values) for name, values in self.lengths.items() if values},
        }


def describe_numbers(values: Iterable[int]) -> dict[str, float]:
    """The distribution of numbers: how many there are, their sum, mean and `QUANTILES`."""
    ordered = sorted(values)
    total = sum(ordered)
    places = {name: ordered[round(part * (len(ordered) - 1))] for name, part in QUANTILES.items()}
    return {"records": len(ordered), "total": total, "mean": round(total / len(ordered), 1), **places}


def table(figures: JsonObject) -> list[Line]:
    """The figures as a table for a terminal."""
    lines: list[Line] = [
        f"{figures['records']:,} records of {figures['conversations']:,} conversations; messages: "
        + ", ".join(f"{count:,} {role}" for role, count in figures["messages_by_role"].items()),
        "",
    ]
    columns = ["mean", *QUANTILES, "total"]
    rows = [["in a record", *columns]]
    for name, values in figures["lengths"].items():
        has_all = values["records"] == figures["records"]
        label = name if has_all else f"{name} (of {values['records']:,} records)"
        rows.append([label, *(f"{values[column]:,}" for column in columns)])
    lines += align_columns(rows)
    if set(figures["languages"]) != {"unknown"}:
        most = list(figures["languages"].items())
        shown = [[name, f"{count:,}", f"{count / figures['records']:.1%}"] for name, count in most[:NUM_LANGUAGES]]
        if rest := sum(count for _, count in most[NUM_LANGUAGES:]):
            shown.append([f"{len(most) - NUM_LANGUAGES} more", f"{rest:,}", f"{rest / figures['records']:.1%}"])
        lines += ["", *align_columns([["language", "records", "part"], *shown])]
    return lines


def align_columns(rows: Sequence[Sequence[str]]) -> list[Line]:
    """Rows of cells as lines: the first column left-aligned, the others right-aligned, the first row in bold."""
    rows = [[printable(cell, limit=MAX_CELL_CHARACTERS) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return [style(lines[0], "bold"), *lines[1:]]


def _counter(options: StatsOptions) -> CountTokens | None:
    if options.tokenizer is None and options.template is None:
        return None
    if options.tokenizer is None or options.template is None:
        missing = "tokenizer" if options.tokenizer is None else "template"
        raise UsageError(f"--{missing} is missing: tokens are counted with both --tokenizer and --template")
    return load_token_counter(get_template(options.template), resolve_model(options.tokenizer, weights=False).folder)
