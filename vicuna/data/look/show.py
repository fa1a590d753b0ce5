"""`vicuna data show [ID...] --in DIR`: records as a person reads them, chosen by id, rule, language or length.

In the folder of a cleaning each record is shown with its repairs, and `--rule` shows the dropped records too: not their
texts, which are not kept, but their places in the input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vicuna.data.look.collection import StoredRecord, files_of, read_all
from vicuna.data.run.output import MANIFEST
from vicuna.errors import VicunaError, nearest
from vicuna.io.jsonl import JsonObject, read_json, read_jsonl
from vicuna.io.terminal import Line, Styled, printable, style, write_text
from vicuna.options import option, parse

ROLE_COLORS = {"user": "cyan", "assistant": "green", "system": "magenta", "tool": "yellow"}


@dataclass(frozen=True)
class ShowOptions:
    """`vicuna data show` options."""

    in_: Path = option(help="the folder of a cleaning, or a file", aliases=("--given",), metavar="PATH")
    id: tuple[str, ...] = option((), help="only records (and pieces) of these ids", positional=True, metavar="ID")
    rule: str | None = option(None, help="only records that this rule dropped, merged or repaired (needs a folder)")
    language: str | None = option(None, help="only records of this language: en, zh, ...")
    min_messages: int = option(0, help="only records of at least so many messages", minimum=0)
    min_tokens: int = option(0, help="only records whose num_tokens is at least this", minimum=0)
    limit: int = option(5, help="stop after so many records", minimum=1)


def main(argv: list[str]) -> int:
    """Print the records on stdout."""
    options = parse(ShowOptions, argv, prog="vicuna data show", description="Print records for reading.")
    findings = _findings(options)
    shown = 0
    for text in _texts(options, findings):
        write_text(text, end="\n\n")
        shown += 1
        if shown == options.limit:
            break
    if not shown:
        raise VicunaError(f"{options.in_} has no such record; give another id, or fewer conditions")
    return 0


def _findings(options: ShowOptions) -> list[JsonObject]:
    """The findings of the cleaning, those of `--rule` if it is given.

    Raises:
        VicunaError: `--rule` without the folder of a cleaning, or a rule that found nothing.
    """
    if not (options.in_ / MANIFEST).is_file():
        if options.rule is not None:
            raise VicunaError(f"--rule {options.rule}: {options.in_} is not the folder of a cleaning, so has no rules")
        return []
    counts = read_json(options.in_ / MANIFEST)["counts"]
    known = sorted({*counts["rules"], *counts["repairs"]})
    if options.rule is not None and options.rule not in known:
        raise VicunaError(f"--rule {options.rule} found nothing there; {nearest(options.rule, known)}")
    rows: list[JsonObject] = []
    for name in ("dropped", "repairs"):
        rows += (row | {"file": name} for row in read_jsonl(options.in_ / f"{name}.jsonl"))
    return [row for row in rows if options.rule in (None, row["rule"])]


def _texts(options: ShowOptions, findings: list[JsonObject]) -> Iterator[Line]:
    repairs: dict[str, list[JsonObject]] = {}
    is_by_text = options.language is not None or options.min_messages or options.min_tokens
    for row in findings:
        if row["file"] == "repairs":
            repairs.setdefault(row["id"], []).append(row)
        elif not is_by_text and (row["id"] in options.id if options.id else options.rule is not None):
            yield _format_finding(row)
    names = ("records", "held_out") if (options.in_ / MANIFEST).is_file() else ("records",)
    for name in names:
        for item in read_all(files_of((options.in_,), name=name)):
            if isinstance(item, StoredRecord) and _is_chosen(item, options):
                own = repairs.get(item.conversation.id) or repairs.get(item.original_id, [])
                if own or options.rule is None:
                    yield _format_record(item, own, name)


def _is_chosen(item: StoredRecord, options: ShowOptions) -> bool:
    tokens = item.row.get("num_tokens", 0)
    return (
        (not options.id or item.conversation.id in options.id or item.original_id in options.id)
        and options.language in (None, item.row.get("language"))
        and len(item.conversation.messages) >= options.min_messages
        and (tokens if isinstance(tokens, int) else 0) >= options.min_tokens
    )


def _format_record(item: StoredRecord, repairs: list[JsonObject], name: str) -> Line:
    row, messages = item.row, item.conversation.messages
    facts = [str(row[key]) for key in ("source", "language") if row.get(key)] + [f"{len(messages)} messages"]
    facts += [f"{row['num_tokens']} tokens"] if row.get("num_tokens") else []
    facts += [f"{row['context_messages']} of context"] if row.get("context_messages") else []
    facts += ["held out"] if name == "held_out" else []
    parts: list[str | Styled] = [style(printable(f"=== {item.conversation.id} ({', '.join(facts)})"), "bold")]
    for repair in repairs:
        parts += ["\n", _format_finding(repair)]
    for message in messages:
        parts += ["\n", style(message.role.upper(), ROLE_COLORS[message.role], "bold"), "\n", message.content]
    return parts


def _format_finding(row: JsonObject) -> Styled:
    turn = "" if row["turn"] is None else f", turn {row['turn']}"
    verb = "repaired" if row["file"] == "repairs" else "merged" if row["step"] == "dedup" else "dropped"
    text = f"--- {row['id']} ({row['source']}{turn}): {verb} by {row['step']}, {row['rule']}: {row['evidence']}"
    return style(printable(text), "yellow")
