"""`vicuna data sample INPUT... --count N --output FILE`: some of the records, chosen at random, in their order."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vicuna.data.look.collection import check_output, files_of, read_valid
from vicuna.errors import UsageError, VicunaError
from vicuna.io.jsonl import JsonObject, write_jsonl
from vicuna.io.terminal import write
from vicuna.options import option, parse


@dataclass(frozen=True)
class SampleOptions:
    """`vicuna data sample` options."""

    inputs: tuple[Path, ...] = option(
        help="folders of cleanings, or files of conversations", positional=True, metavar="INPUT"
    )
    output: Path = option(help="file for the chosen records (JSON lines); must not be there yet")
    count: int | None = option(None, help="how many records to choose", minimum=1)
    ratio: float | None = option(None, help="which part of the records to choose (above 0 to 1), instead of --count")
    seed: int = option(0, help="another seed, another choice; the same seed and inputs, the same choice")


def main(argv: list[str]) -> int:
    """Write the sample, and say how large it is."""
    options = parse(SampleOptions, argv, prog="vicuna data sample", description="Choose records by chance.")
    if (options.count is None) == (options.ratio is None):
        raise UsageError("give either --count or --ratio, to say how many records to choose")
    if options.ratio is not None and not 0 < options.ratio <= 1:
        raise UsageError(f"--ratio {options.ratio}: give a number above 0, up to 1")
    check_output(options.output)
    paths = files_of(options.inputs)
    total = sum(1 for _ in read_valid(paths))
    count = options.count if options.count is not None else round(total * (options.ratio or 0))
    if not 0 < count <= total:
        raise VicunaError(f"{count} of {total} records cannot be chosen; give another --count or --ratio")
    chosen = frozenset(random.Random(options.seed).sample(range(total), count))
    write_jsonl(options.output, _chosen(paths, chosen))
    write(f"{count:,} of {total:,} records in {options.output}")
    return 0


def _chosen(paths: list[Path], numbers: frozenset[int]) -> Iterator[JsonObject]:
    return (item.row for number, item in enumerate(read_valid(paths)) if number in numbers)
