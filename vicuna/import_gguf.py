"""`vicuna import gguf`: a GGUF file as a Hugging Face folder, to be trained on, served or exported again.

The inverse of `vicuna.export`. The work is in `weights.gguf.from_gguf`.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vicuna.io.log import human_bytes
from vicuna.io.terminal import write
from vicuna.options import command, option, parse, run_verb
from vicuna.weights.files.numbers import DTYPES
from vicuna.weights.gguf.from_gguf import import_gguf

USAGE = """usage: vicuna import VERB [OPTION ...]

  gguf FILE --output-dir DIR   make a Hugging Face model of a GGUF file

vicuna import VERB --help tells about one verb. The way there: vicuna export gguf."""


@dataclass(frozen=True)
class GGUFOptions:
    """`vicuna import gguf` options."""

    file: Path = option(help="the GGUF file", positional=True)
    output_dir: Path = option(help="folder to make; must not hold anything yet", aliases=("--target",))
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = option(
        "auto", help="how weights are stored; auto: as in the file, bfloat16 where it is quantized"
    )


def gguf(argv: list[str]) -> int:
    """Make the folder; one line on stdout."""
    options = parse(
        GGUFOptions,
        argv,
        prog="vicuna import gguf",
        description="Make a Hugging Face folder (weights, configuration, tokenizer, template) of a GGUF file.",
        epilog="Quantized weights become the numbers that their blocks stand for: what was lost stays lost.",
    )
    dtype = None if options.dtype == "auto" else DTYPES[options.dtype]
    made = import_gguf(options.file, options.output_dir, dtype)
    tensors = made.tensors().values()
    write(
        f"{options.output_dir}: {made.shape.model_type}, {len(tensors)} tensors as {made.config()['torch_dtype']}, "
        f"{sum(math.prod(tensor.shape) for tensor in tensors):,} parameters, "
        f"{human_bytes(sum(tensor.size_bytes for tensor in tensors))}"
    )
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {"gguf": gguf}


@command
def main(argv: list[str] | None = None) -> int:
    """Run the verb named first."""
    return run_verb("vicuna import", VERBS, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(None))
