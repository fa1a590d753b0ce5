"""`vicuna export gguf|check`: a Hugging Face model as a GGUF file for llama.cpp and its kin, and proof that it is one.

Comes after training or `vicuna.apply_delta`; `vicuna import gguf` is the inverse. The work is in
`weights.gguf.to_gguf` and `weights.gguf.check`.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vicuna.errors import VerificationError
from vicuna.io.log import human_bytes
from vicuna.io.terminal import write, write_json
from vicuna.options import command, option, parse, run_verb
from vicuna.weights.files.hub import Source
from vicuna.weights.gguf.card import HUB, Card
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES, TypeName
from vicuna.weights.resolve import NAMES, resolve_model

USAGE = """usage: vicuna export VERB [OPTION ...]

  gguf --model DIR --output FILE --type TYPE   write a model as GGUF
  check --model DIR --gguf FILE                compare a GGUF file with the model it was made from

vicuna export VERB --help tells about one verb. The way back: vicuna import gguf."""

TYPES_HELP = """types, with the bits that a weight of a LLaMA takes:
  f32 32, f16 16, bf16 16   as they are
  q8_0 8.5                  next to no loss
  q6_k 6.6, q5_k_m 5.7      little
  q4_k_m 4.8                some: what most people run
  q4_0 4.6                  more

examples:
  vicuna export gguf --model tuned/model --output vicuna-q4_k_m.gguf --type q4_k_m --check
  vicuna export check --model tuned/model --gguf vicuna-q4_k_m.gguf --json"""


@dataclass(frozen=True)
class GGUFOptions:
    """`vicuna export gguf` options."""

    model: str = option(help=f"the Hugging Face model: {NAMES}", aliases=("--model-path",))
    output: Path = option(help="file to write", aliases=("--outfile",))
    type: TypeName = option("q8_0", help="how weights are stored", aliases=("--outtype",))
    check: bool = option(False, help="compare tokens and probabilities with the model's afterwards; exit code 3 if not")
    overwrite: bool = option(False, help="replace the output if it is there")
    name: str | None = option(None, help="the model's name (default: the README's, or the folder's)")
    license: str | None = option(None, help="the licence to state (default: the README's)")
    source: str | None = option(None, help="an address to state as the model's source")
    pre_tokenizer: str | None = option(
        None, help="llama.cpp's name for how a BPE tokenizer cuts text, if not known here"
    )


@dataclass(frozen=True)
class CheckOptions:
    """`vicuna export check` options."""

    model: str = option(help=f"the Hugging Face model: {NAMES}", aliases=("--model-path",))
    gguf: Path = option(help="the GGUF file made from it")
    json: bool = option(False, help="print JSON")


def gguf(argv: list[str]) -> int:
    """Write the file; one line on stdout, and the check's figures where one is asked for."""
    options = parse(
        GGUFOptions,
        argv,
        prog="vicuna export gguf",
        description="Write a model of the LLaMA family as one GGUF file.",
        epilog=TYPES_HELP,
    )
    if options.check:
        from vicuna.weights.gguf.check import ensure_can_check  # here: it brings in transformers and torch

        ensure_can_check()
    source = resolve_model(options.model)
    made = export_gguf(
        source.folder,
        options.output,
        FILE_TYPES[options.type],
        card=_card(options, source),
        pre_tokenizer=options.pre_tokenizer,
        overwrite=options.overwrite,
    )
    write(
        f"{options.output}: {options.type}, {made.num_tensors} tensors, {human_bytes(made.size_bytes)} for a model of "
        f"{human_bytes(made.source_bytes)} ({made.bits_per_weight:.2f} bits per weight)"
    )
    return check_file(source.folder, options.output) if options.check else 0


def _card(options: GGUFOptions, source: Source) -> Card:
    """The flags' name, licence and source; for a model from the hub, by default its name and commit there."""
    name, address = options.name, options.source
    if source.origin is not None:
        name = name or source.origin["id"].rpartition("/")[2]
        address = address or f"{HUB}/{source.origin['id']}/tree/{source.origin['revision']}"
    return Card(name, options.license, address)


def check(argv: list[str]) -> int:
    """Print how near the file is to the model; exit code 3 if it is another's."""
    options = parse(
        CheckOptions,
        argv,
        prog="vicuna export check",
        description="Compare a GGUF file's tokens and probabilities with those of the model it was made from.",
    )
    return check_file(resolve_model(options.model).folder, options.gguf, as_json=options.json)


def check_file(model: Path, file: Path, *, as_json: bool = False) -> int:
    """Print the figures.

    Raises:
        VerificationError: a text became other tokens, or the probabilities are another model's.
    """
    from vicuna.weights.gguf.check import check_gguf  # here: it brings in transformers and torch

    report = check_gguf(model, file)
    if as_json:
        write_json(asdict(report), indent=2)
    else:
        write(*report.lines())
    if report.mismatches:
        more = f" (and {len(report.mismatches) - 1} more)" if len(report.mismatches) > 1 else ""
        raise VerificationError(f"{file} cuts text into other tokens than {model}: {report.mismatches[0]}{more}")
    if report.agreement.mean_kl > report.limit:
        raise VerificationError(
            f"{file} does not answer as {model} does: {report.agreement.mean_kl:.3f} nats apart on average, and files "
            f"of its type stay below {report.limit}; it is another model's, or damaged"
        )
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {"gguf": gguf, "check": check}


@command
def main(argv: list[str] | None = None) -> int:
    """Run the verb named first."""
    return run_verb("vicuna export", VERBS, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(None))
