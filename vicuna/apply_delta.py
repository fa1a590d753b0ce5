"""`python -m vicuna.apply_delta`: base + delta = model, verified bit by bit.

The flags are those of the Vicuna release. Comes after `python -m vicuna.make_delta`, before serving. The work is in
`weights.delta.apply`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from vicuna.errors import UsageError
from vicuna.io.log import info
from vicuna.io.terminal import write, write_json
from vicuna.options import command, option, parse
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.files.hub import origins
from vicuna.weights.files.manifest import MODEL
from vicuna.weights.resolve import NAMES, resolve_model

EPILOG = """Takes deltas of vicuna make-delta in both formats, and additive ones as FastChat makes them.

examples:
  vicuna apply-delta --base base --delta delta --target model
  vicuna apply-delta --base llama-7b --delta lmsys/vicuna-7b-delta-v1.1 --target vicuna-7b"""


@dataclass(frozen=True)
class Options:
    base: str = option(
        help=f"the model that the delta was made from: {NAMES}",
        aliases=("--base-model-path",),
        metavar="MODEL",
    )
    target: Path = option(
        help="folder to write; must not hold anything yet", aliases=("--target-model-path",), metavar="DIR"
    )
    delta: str = option(help="the delta: its folder, or a hub id", aliases=("--delta-path",), metavar="DELTA")
    trim_vocabulary: bool = option(
        False, help="leave rows of the base's vocabulary out that a delta without a manifest does not have"
    )
    resume: bool = option(True, help="go on where a killed run of the same command stopped")
    json: bool = option(False, help="print JSON")
    low_cpu_mem: bool = option(True, help="as in FastChat's command; a few MiB of memory are used in any case")


@command
def main(argv: list[str] | None = None) -> int:
    """Make the model; stdout gets the SHA-256 of its weight files, as `sha256sum` prints them."""
    options = parse(
        Options,
        argv,
        prog="vicuna apply-delta",
        description="Make a model out of its base and a delta. Exit code 3: wrong base or damaged delta.",
        epilog=EPILOG,
    )
    if not options.low_cpu_mem:
        raise UsageError("--no-low-cpu-mem: there is no other way, models are never held in memory; leave it out")
    base, delta = resolve_model(options.base), resolve_model(options.delta)
    manifest = apply_delta(
        base.folder,
        delta.folder,
        options.target,
        trim_vocabulary=options.trim_vocabulary,
        resume=options.resume,
        sources=origins(base=base, delta=delta),
    )
    is_verified = manifest.format != MODEL
    if options.json:
        files = {shard.file: shard.sha256 for shard in manifest.shards}
        facts = {"target": str(options.target), "verified": is_verified, "num_tensors": len(manifest.tensors)}
        write_json({**facts, "num_files": len(manifest.files), "sha256": files})
    else:
        for shard in manifest.shards:
            write(f"{shard.sha256}  {options.target / shard.file}")
    what = f"{len(manifest.tensors)} tensors and {len(manifest.files)} other files"
    info(f"verified bit for bit: {what}" if is_verified else f"made: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
