"""`vicuna data why ID --in DIR`: what became of one record of a cleaning, from the files in its folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vicuna.data.run.output import ROW_FILES, read_manifest
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject, read_jsonl
from vicuna.io.terminal import write
from vicuna.options import option, parse


@dataclass(frozen=True)
class WhyOptions:
    """`vicuna data why` options."""

    id: str = option(help="the record's id, as it came in or as it was written", positional=True)
    in_: Path = option(help="the folder that the cleaning wrote", aliases=("--result",), metavar="DIR")


def main(argv: list[str]) -> int:
    """Print each finding about the record, and where it was written, on stdout."""
    options = parse(WhyOptions, argv, prog="vicuna data why", description="Tell what became of one record.")
    if not options.in_.is_dir():
        raise VicunaError(f"--in {options.in_}: no such folder; name the --output-dir of a cleaning")
    names = sorted(read_manifest(options.in_)["outputs"])
    lines: list[str] = []
    for name in ("repairs", "dropped", "records", "held_out"):
        path = options.in_ / f"{name}.jsonl"
        try:
            for row in read_jsonl(path) if path.name in names else ():
                lines += _lines(name, row, options.id)
        except (KeyError, TypeError):
            raise VicunaError(f"{path} was changed after its cleaning; clean again to learn more") from None
    if not lines:
        raise VicunaError(
            f"no record '{options.id}' in {options.in_}; ids stand in {ROW_FILES[0]}.jsonl and dropped.jsonl"
        )
    write(*lines)
    return 0


def _lines(name: str, row: JsonObject, identifier: str) -> Iterator[str]:
    if identifier not in (row["id"], row.get("original_id")):
        return
    if name in ("repairs", "dropped"):
        turn = "" if row["turn"] is None else f", turn {row['turn']}"
        verb = "repaired" if name == "repairs" else "merged into another" if row["step"] == "dedup" else "dropped"
        yield f"{row['id']} ({row['source']}{turn}): {verb} by {row['step']}, {row['rule']}: {row['evidence']}"
    else:
        tokens = f", {row['num_tokens']} tokens" if "num_tokens" in row else ""
        yield f"{row['id']} ({row['source']}): in {name}.jsonl with {len(row['messages'])} messages{tokens}"
