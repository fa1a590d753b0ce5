"""`python -m vicuna.apply_delta`: base + delta = model, verified bit by bit.

The flags are those of the Vicuna release. Comes after `python -m vicuna.make_delta` (often somebody else's), before
serving. Work: `weights.apply`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from vicuna.log import info
from vicuna.options import command, option, parse
from vicuna.weights.apply import apply_delta


@dataclass(frozen=True)
class Options:
    base: Path = option(help="folder of the model from which the delta was made", aliases=("--base-model-path",))
    target: Path = option(help="folder to write; must not hold anything yet", aliases=("--target-model-path",))
    delta: Path = option(help="folder of the delta", aliases=("--delta-path",))


@command
def main(argv: list[str] | None = None) -> int:
    """Make the model; stdout gets the SHA-256 of its weight files, as `sha256sum` prints them."""
    options = parse(
        Options,
        argv,
        prog="python -m vicuna.apply_delta",
        description="Make a model out of its base and a delta. Exit code 3: wrong base or damaged delta.",
    )
    manifest = apply_delta(options.base, options.delta, options.target)
    for shard in manifest.shards:
        print(f"{shard.sha256}  {options.target / shard.file}")
    info(f"verified bit for bit: {len(manifest.tensors)} tensors and {len(manifest.files)} other files")
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
