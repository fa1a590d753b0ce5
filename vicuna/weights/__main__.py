"""`vicuna weights verify|inspect|small-model`: look at checkpoints and deltas, and prove them.

Making and applying deltas are commands of their own: `vicuna.make_delta` and `vicuna.apply_delta`.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vicuna.errors import UsageError, nearest
from vicuna.log import human_bytes
from vicuna.options import command, option, parse
from vicuna.weights.detect import kind_of
from vicuna.weights.inspect import as_table, inspect
from vicuna.weights.small_model import find_small_model
from vicuna.weights.verify import manifest_for, verify_delta, verify_model

USAGE = """usage: vicuna weights VERB [OPTION ...]

  verify PATH [--delta D | --manifest F]  hash a model's every tensor and file, or a delta's every byte
  inspect PATH [--json]                   what a model or delta holds
  small-model                             path of SmolLM2-135M-Instruct; made on the first call

vicuna weights VERB --help tells about one verb. See also vicuna make-delta and vicuna apply-delta."""


@dataclass(frozen=True)
class VerifyOptions:
    """`vicuna weights verify` options."""

    path: Path = option(help="folder of a model or of a delta", positional=True)
    delta: Path | None = option(None, help="the delta that the model was made with (default: the model's own manifest)")
    manifest: Path | None = option(None, help="a manifest file instead of a delta")


@dataclass(frozen=True)
class InspectOptions:
    """`vicuna weights inspect` options."""

    path: Path = option(help="folder of a model or of a delta", positional=True)
    json: bool = option(False, help="print JSON")


@dataclass(frozen=True)
class SmallModelOptions:
    """`vicuna weights small-model` options: there are none."""


def verify(argv: list[str]) -> int:
    """Print what was verified; exit code 3 if something differs."""
    options = parse(VerifyOptions, argv, prog="vicuna weights verify", description="Prove a model or a delta by hash.")
    if options.delta and options.manifest:
        raise UsageError("vicuna weights verify: give --delta or --manifest, not both")
    if options.delta is None and options.manifest is None and kind_of(options.path) == "exact delta":
        verified = verify_delta(options.path)
    else:
        verified = verify_model(options.path, manifest_for(options.path, options.delta, options.manifest))
    print(
        f"{options.path}: {verified.num_tensors} tensors ({human_bytes(verified.size_bytes)}) "
        f"and {verified.num_files} other files are as they should be"
    )
    return 0


def inspect_path(argv: list[str]) -> int:
    """Print the facts as a table or as JSON."""
    options = parse(InspectOptions, argv, prog="vicuna weights inspect", description="What a model or delta holds.")
    facts = inspect(options.path)
    print(json.dumps(facts, indent=2) if options.json else as_table(facts))
    return 0


def small_model(argv: list[str]) -> int:
    """Print the small model's folder."""
    parse(SmallModelOptions, argv, prog="vicuna weights small-model", description="Where SmolLM2-135M-Instruct is.")
    print(find_small_model())
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "verify": verify,
    "inspect": inspect_path,
    "small-model": small_model,
}


@command
def main(argv: list[str] | None = None) -> int:
    """Run the verb named first."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        raise UsageError(f"vicuna weights: unknown verb '{verb}'; {nearest(verb, VERBS)}")
    return VERBS[verb](rest)


if __name__ == "__main__":
    sys.exit(main(None))
