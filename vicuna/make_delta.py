"""`python -m vicuna.make_delta`: the difference between a base model and one fine-tuned from it, to be published.

Comes after training; with it and the base, `python -m vicuna.apply_delta` makes the model. The work is in
`weights.delta.make`.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from vicuna.io.log import human_bytes
from vicuna.io.terminal import write, write_json
from vicuna.options import command, option, parse
from vicuna.weights.delta.make import Format, make_delta
from vicuna.weights.files.hub import origins
from vicuna.weights.resolve import NAMES, resolve_model

EPILOG = """formats:
  exact     the difference of bit patterns: a tenth to a third of the model, restored bit for bit
  additive  target - base as safetensors, as large as the model: other tools (FastChat's) add it too, nearly exactly;
            with this tool and the corrections beside it, bit for bit

examples:
  vicuna make-delta --base base --target tuned/model --delta delta
  vicuna make-delta --base owner/base@1a2b3c --target tuned/model --delta delta --format additive"""


@dataclass(frozen=True)
class Options:
    base: str = option(
        help=f"the model that was fine-tuned: {NAMES}",
        aliases=("--base-model-path",),
        metavar="MODEL",
    )
    target: str = option(
        help="the fine-tuned model: its folder, or a hub id", aliases=("--target-model-path",), metavar="MODEL"
    )
    delta: Path = option(help="folder to write; must not hold anything yet", aliases=("--delta-path",), metavar="DIR")
    format: Format = option("exact", help="kind of delta, see below")
    resume: bool = option(True, help="go on where a killed run of the same command stopped")
    json: bool = option(False, help="print JSON")


@command
def main(argv: list[str] | None = None) -> int:
    """Make the delta; stdout gets one line with its size."""
    options = parse(
        Options,
        argv,
        prog="vicuna make-delta",
        description="Write the difference between two models, from which apply_delta restores the target bit for bit.",
        epilog=EPILOG,
    )
    base, target = resolve_model(options.base), resolve_model(options.target)
    made = make_delta(
        base.folder,
        target.folder,
        options.delta,
        format=options.format,
        resume=options.resume,
        sources=origins(base=base, target=target),
    )
    ratio = made.delta_bytes / max(made.target_bytes, 1)
    if options.json:
        write_json({"delta": str(options.delta), **asdict(made), "ratio": round(ratio, 4)})
        return 0
    notes = [f"{made.num_whole} stored whole"] * bool(made.num_whole)
    notes += [f"{made.num_corrections:,} numbers corrected"] * (made.format == "additive")
    shown = f" ({', '.join(notes)})" if notes else ""
    write(
        f"{options.delta}: {made.num_tensors} tensors{shown}, {human_bytes(made.delta_bytes)} for a model of "
        f"{human_bytes(made.target_bytes)} ({ratio:.3f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
