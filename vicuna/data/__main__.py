"""`python -m vicuna.data`: shared conversations in, training records out. The order of the work is in `pipeline`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna import log
from vicuna.conversation import get_template, load_tokenizer
from vicuna.data import why
from vicuna.data.output import (
    FILES,
    MANIFEST,
    REPORT,
    check_folder,
    describe_file,
    manifest_of,
    write_rows,
)
from vicuna.data.pipeline import Cleaner, File, Row
from vicuna.data.record import read_records
from vicuna.data.report import Samples, report_page
from vicuna.data.split import CountTokens, token_counter
from vicuna.errors import UsageError, VicunaError
from vicuna.files import atomic_directory
from vicuna.jsonl import write_json
from vicuna.options import command, option, parse, to_dict

DESCRIPTION = (
    "Clean shared conversations: HTML to Markdown, roles repaired, errors and duplicates out, long ones split."
)
EPILOG = """examples:
  python -m vicuna.data sharegpt.json --output-dir cleaned/
  python -m vicuna.data sharegpt.json identity.jsonl --output-dir cleaned/ \\
      --tokenizer base/ --template vicuna_v1.1 --max-tokens 2048 --held-out-ratio 0.02
  python -m vicuna.data why ID --in cleaned/     what became of one record"""


@dataclass(frozen=True)
class DataOptions:
    """`vicuna data` options."""

    inputs: tuple[Path, ...] = option(
        help="JSON arrays or JSON lines of conversations: ShareGPT, OpenAI messages or Alpaca",
        positional=True,
        metavar="INPUT",
    )
    output_dir: Path = option(help="folder for the result; an earlier result in it is replaced")
    tokenizer: Path | None = option(None, help="folder of a tokenizer, to count tokens as the trainer will")
    template: str | None = option(None, help="conversation template of the training, for counting tokens")
    max_tokens: int | None = option(None, help="split conversations longer than this many tokens, between rounds")
    held_out_ratio: float = option(0.0, help="part of the conversations (0 to below 1) to keep from training")


@command
def main(argv: list[str] | None = None) -> int:
    """Clean, write the result, print what became of the records."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["why"]:
        return why.main(arguments[1:])
    options = parse(DataOptions, arguments, prog="python -m vicuna.data", description=DESCRIPTION, epilog=EPILOG)
    count_tokens = _counter(options)
    if not 0 <= options.held_out_ratio < 1:
        raise UsageError(f"--held-out-ratio {options.held_out_ratio}: give a number from 0 to below 1")
    check_folder(options.output_dir, options.inputs)
    manifest = clean(options, count_tokens)
    print(summary(manifest["counts"], options.output_dir))
    if not manifest["counts"]["records_out"]:
        raise VicunaError(f"no record is left to train on; {options.output_dir / REPORT} says why")
    if options.held_out_ratio and not manifest["counts"]["held_out"]:
        log.warning(f"--held-out-ratio {options.held_out_ratio} held nothing out; give more records or a larger ratio")
    return 0


def clean(options: DataOptions, count_tokens: CountTokens | None) -> Row:
    """Do the work and return the manifest."""
    cleaner = Cleaner(count_tokens, options.max_tokens, options.held_out_ratio)
    samples = Samples()
    names = [name for name in FILES if name != "held_out" or options.held_out_ratio]
    recorded = {name: value for name, value in to_dict(options).items() if name not in ("inputs", "output_dir")}
    if options.tokenizer is not None:
        recorded["tokenizer"] = options.tokenizer.resolve().name
    with atomic_directory(options.output_dir, overwrite=True) as folder:
        write_rows(folder, names, samples.watch(_rows(cleaner, options.inputs)))
        manifest = manifest_of(folder, cleaner, options.inputs, recorded)
        report_page(manifest, samples, cleaner.rules).write(folder / REPORT)
        manifest["outputs"][REPORT] = describe_file(folder / REPORT)
        write_json(folder / MANIFEST, manifest)
    return manifest


def summary(counts: dict[str, Any], output_dir: Path) -> str:
    """The result in a few lines."""
    lines = [
        f"records in: {counts['records_in']:,}   kept: {counts['kept']:,}   dropped: {counts['dropped']:,}   "
        f"merged: {counts['merged']:,}",
        f"repaired: {counts['repaired']:,}   split: {counts['split']:,} into {counts['pieces']:,}",
    ]
    lines += [f"  {rule}: {count:,}" for rule, count in sorted(counts["rules"].items(), key=lambda item: -item[1])]
    tokens = f", {counts['tokens']:,} tokens" if counts["tokens"] else ""
    lines.append(f"records out: {counts['records_out']:,}   held out: {counts['held_out']:,}{tokens}")
    lines.append(f"result: {output_dir} (look at {output_dir / REPORT})")
    return "\n".join(lines)


def _rows(cleaner: Cleaner, inputs: tuple[Path, ...]) -> Iterator[tuple[File, Row]]:
    with log.Progress(None, description="cleaning", unit="records") as progress:
        for path in inputs:
            for item in read_records(path):
                yield from cleaner.clean(item)
                progress.update(kept=cleaner.counts.kept)


def _counter(options: DataOptions) -> CountTokens | None:
    """How tokens are counted, from `--tokenizer` and `--template`; None without them."""
    if options.tokenizer is None or options.template is None:
        for name in ("tokenizer", "template", "max_tokens"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs both --tokenizer and --template, to count tokens")
        return None
    template = get_template(options.template)
    if options.max_tokens is not None and options.max_tokens < 1:
        raise UsageError(f"--max-tokens {options.max_tokens}: give a positive number of tokens")
    return token_counter(template, load_tokenizer(options.tokenizer))


if __name__ == "__main__":
    sys.exit(main(None))
