"""`python -m vicuna.make_delta`: the difference between a base model and one fine-tuned from it, to be published.

Comes after training; whoever has the base makes the model with `python -m vicuna.apply_delta`. Work: `weights.make`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from vicuna.log import human_bytes
from vicuna.options import command, option, parse
from vicuna.weights.make import make_delta


@dataclass(frozen=True)
class Options:
    base: Path = option(help="folder of the model that was fine-tuned", aliases=("--base-model-path",))
    target: Path = option(help="folder of the fine-tuned model", aliases=("--target-model-path",))
    delta: Path = option(help="folder to write; must not hold anything yet", aliases=("--delta-path",))


@command
def main(argv: list[str] | None = None) -> int:
    """Make the delta; stdout gets one line with its size."""
    options = parse(
        Options,
        argv,
        prog="python -m vicuna.make_delta",
        description="Write the difference between two models, from which apply_delta restores the target bit for bit.",
    )
    made = make_delta(options.base, options.target, options.delta)
    whole = f" ({made.num_whole} stored whole)" if made.num_whole else ""
    print(
        f"{options.delta}: {made.num_tensors} tensors{whole}, {human_bytes(made.delta_bytes)} for a model of "
        f"{human_bytes(made.target_bytes)} ({made.delta_bytes / max(made.target_bytes, 1):.3f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
