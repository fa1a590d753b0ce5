"""`vicuna weights verify|inspect|cast|merge-lora|small-model`: verify, describe, convert and merge checkpoints.

Making and applying deltas are commands of their own: `vicuna.make_delta` and `vicuna.apply_delta`. The work is in
`tools` and `small_model`.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vicuna.errors import UsageError, VerificationError
from vicuna.io.log import human_bytes
from vicuna.io.terminal import printable, write, write_json
from vicuna.options import command, option, parse, run_verb
from vicuna.weights.files.detect import has_manifest
from vicuna.weights.files.hub import origins
from vicuna.weights.files.manifest import Manifest
from vicuna.weights.files.numbers import TorchName
from vicuna.weights.resolve import NAMES, resolve_model
from vicuna.weights.small_model import find_small_model
from vicuna.weights.tools.cast import cast_model
from vicuna.weights.tools.inspect import as_table, inspect
from vicuna.weights.tools.lora import merge_lora
from vicuna.weights.tools.verify import manifest_for, verify_delta, verify_model

USAGE = """usage: vicuna weights VERB [OPTION ...]

  verify PATH [--quick]                   hash a model's every tensor and file, or a delta's every byte
  inspect PATH                            what a model, delta or adapter holds
  cast MODEL --target DIR [--dtype D]     other numbers or files: fp32 to bf16, .bin to safetensors, other shards
  merge-lora --base B --adapter A --target DIR   a LoRA adapter and its base as one model
  small-model                             path of SmolLM2-135M-Instruct; made on the first call

vicuna weights VERB --help tells about one verb. See also vicuna make-delta and vicuna apply-delta."""


@dataclass(frozen=True)
class VerifyOptions:
    """`vicuna weights verify` options."""

    path: str = option(help="a model or a delta: its folder, or a hub id", positional=True)
    delta: Path | None = option(None, help="the delta that the model was made with (default: the model's own manifest)")
    manifest: Path | None = option(None, help="a manifest file instead of a delta")
    quick: bool = option(
        False, help="hash samples of each tensor: seconds for any model, but not every byte is looked at"
    )
    json: bool = option(False, help="print JSON")


@dataclass(frozen=True)
class InspectOptions:
    """`vicuna weights inspect` options."""

    path: str = option(help="a model, a delta or a LoRA adapter: its folder, or a hub id", positional=True)
    json: bool = option(False, help="print JSON")


@dataclass(frozen=True)
class CastOptions:
    """`vicuna weights cast` options."""

    model: str = option(help=f"the model: {NAMES}", positional=True)
    target: Path = option(help="folder to write; must not hold anything yet", metavar="DIR")
    dtype: TorchName | None = option(None, help="numbers of the weights (default: as they are)")
    max_shard_gb: float = option(5.0, help="largest file, in GB of 10^9 bytes", minimum=0.001)
    resume: bool = option(True, help="go on where a killed run of the same command stopped")
    json: bool = option(False, help="print JSON")


@dataclass(frozen=True)
class MergeOptions:
    """`vicuna weights merge-lora` options."""

    base: str = option(help=f"the model that the adapter was trained on: {NAMES}", aliases=("--base-model-path",))
    adapter: str = option(help="the adapter as peft saves it: its folder, or a hub id", aliases=("--lora-path",))
    target: Path = option(
        help="folder to write; must not hold anything yet", aliases=("--target-model-path",), metavar="DIR"
    )
    resume: bool = option(True, help="go on where a killed run of the same command stopped")
    json: bool = option(False, help="print JSON")


@dataclass(frozen=True)
class SmallModelOptions:
    """`vicuna weights small-model` options: there are none."""


def verify(argv: list[str]) -> int:
    """Print what was verified; exit code 3 if something differs."""
    options = parse(VerifyOptions, argv, prog="vicuna weights verify", description="Prove a model or a delta by hash.")
    if options.delta and options.manifest:
        raise UsageError("vicuna weights verify: give --delta or --manifest, not both")
    path = resolve_model(options.path).folder
    is_delta = options.delta is None and options.manifest is None and has_manifest(path)
    try:
        if is_delta and options.quick:
            raise UsageError("vicuna weights verify: --quick is for models; a delta is small enough to verify whole")
        if is_delta:
            verified = verify_delta(path)
        else:
            manifest = manifest_for(path, options.delta, options.manifest)
            is_own = options.delta is None and options.manifest is None
            verified = verify_model(path, manifest, quick=options.quick, is_own=is_own)
    except VerificationError as error:
        if not options.json:
            raise
        write_json({"path": str(path), "verified": False, "error": printable(str(error))})
        return error.exit_code
    facts = {"path": str(path), "verified": True, "quick": options.quick, **asdict(verified)}
    if options.json:
        write_json(facts)
    else:
        how = "in samples of" if options.quick else "in"
        write(
            f"{path}: as it should be {how} {verified.num_tensors} tensors ({human_bytes(verified.size_bytes)}) "
            f"and {verified.num_files} other files"
        )
    return 0


def inspect_path(argv: list[str]) -> int:
    """Print the facts as a table or as JSON."""
    options = parse(InspectOptions, argv, prog="vicuna weights inspect", description="What a model or delta holds.")
    facts = inspect(resolve_model(options.path).folder)
    if options.json:
        write_json(facts, indent=2)
    else:
        write(*as_table(facts))
    return 0


def cast(argv: list[str]) -> int:
    """Write the model in other numbers or files."""
    options = parse(
        CastOptions,
        argv,
        prog="vicuna weights cast",
        description="Write a model as safetensors, in other numbers or other shards. Rounds to nearest, ties to even.",
    )
    model = resolve_model(options.model)
    manifest = cast_model(
        model.folder,
        options.target,
        dtype=options.dtype,
        max_shard_bytes=int(options.max_shard_gb * 10**9),
        resume=options.resume,
        sources=origins(model=model),
    )
    return _print_made(options.target, manifest, as_json=options.json)


def merge(argv: list[str]) -> int:
    """Write base and adapter as one model."""
    options = parse(
        MergeOptions,
        argv,
        prog="vicuna weights merge-lora",
        description="Merge a LoRA adapter into its base, streamed: a few MiB of memory whatever the model's size.",
    )
    base, adapter = resolve_model(options.base), resolve_model(options.adapter)
    sources = origins(base=base, adapter=adapter)
    manifest = merge_lora(base.folder, adapter.folder, options.target, resume=options.resume, sources=sources)
    return _print_made(options.target, manifest, as_json=options.json)


def small_model(argv: list[str]) -> int:
    """Print the small model's folder."""
    parse(SmallModelOptions, argv, prog="vicuna weights small-model", description="Where SmolLM2-135M-Instruct is.")
    write(str(find_small_model()))
    return 0


def _print_made(target: Path, manifest: Manifest, *, as_json: bool) -> int:
    """The new model's files of weights with their SHA-256, as `sha256sum` prints them."""
    if as_json:
        files = {shard.file: shard.sha256 for shard in manifest.shards}
        write_json({"target": str(target), "num_tensors": len(manifest.tensors), "sha256": files})
    else:
        for shard in manifest.shards:
            write(f"{shard.sha256}  {target / shard.file}")
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "verify": verify,
    "inspect": inspect_path,
    "cast": cast,
    "merge-lora": merge,
    "small-model": small_model,
}


@command
def main(argv: list[str] | None = None) -> int:
    """Run the verb named first."""
    return run_verb("vicuna weights", VERBS, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(None))
