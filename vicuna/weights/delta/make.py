"""Make a delta: base and target in, the folder that `layout` describes out.

The command `vicuna.make_delta` calls it; `makers` encodes the tensors. A few frames are in memory whatever the
models' size; bytes are hashed as they are read; the folder gets its name when it is complete, and a killed run is
resumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import vicuna
from vicuna.errors import UsageError, require
from vicuna.io.files import ensure_free_space
from vicuna.io.log import Progress
from vicuna.io.model_files import read_model_json
from vicuna.weights.delta.layout import FILES_NAME, PREAMBLES, REGION_NAMES, write_sums
from vicuna.weights.delta.makers import AdditiveMaker, ExactMaker
from vicuna.weights.delta.regions import RegionFile
from vicuna.weights.files.checkpoint import CheckpointReader, check_exists
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.files.manifest import ADDITIVE, DELTA_MANIFEST, EXACT, Manifest
from vicuna.weights.files.other_files import copy_files, other_files
from vicuna.weights.files.unfinished import identity, resumable_directory, unfinished_bytes

Value = TypeVar("Value")
Format = Literal["exact", "additive"]
FORMATS: dict[Format, str] = {"exact": EXACT, "additive": ADDITIVE}


@dataclass(frozen=True)
class DeltaSummary:
    """What was made: sizes of the target's tensors and of the delta's weights, in bytes.

    Args:
        num_whole: tensors stored without a base.
        num_corrections: numbers that plain addition would not restore (additive).
    """

    format: Format
    num_tensors: int
    num_whole: int
    num_corrections: int
    target_bytes: int
    delta_bytes: int


def make_delta(
    base: Path,
    target: Path,
    delta: Path,
    *,
    format: Format = "exact",
    resume: bool = True,
    sources: Mapping[str, dict[str, str]] | None = None,
) -> DeltaSummary:
    """Write the folder `delta`, from which `apply_delta` makes `target` out of `base`.

    Args:
        resume: continue an earlier run of the same call that was killed.
        sources: where base and target were downloaded from, for the manifest.

    Raises:
        VicunaError: base or target cannot be read or is itself a delta, or `delta` exists.
    """
    require("zstandard", "export")
    check_exists(base, "the folder of the model that was fine-tuned")
    check_exists(target, "the fine-tuned model's folder")
    refuse_delta(base)
    refuse_delta(target)
    if not target.is_dir():
        raise UsageError(f"--target {target} is not a folder; give the fine-tuned model's folder")
    if base.resolve() == target.resolve():
        raise UsageError(f"--base and --target are the same model, {base}; give the original and the fine-tuned one")
    kind = FORMATS[format]
    with CheckpointReader(base) as base_reader, CheckpointReader(target) as target_reader:
        template = _from_json(target / "vicuna_template.json", "template", str)
        base_vocab_size = _from_json(base_reader.folder / "config.json", "vocab_size", int)
        target_vocab_size = _from_json(target / "config.json", "vocab_size", int)
        others = other_files(target)
        # Frames that do not shrink are stored as they are, so a delta is never much larger than its target.
        needed = target_reader.total_bytes - unfinished_bytes(delta)
        ensure_free_space(delta, needed, f"the delta {delta} (at most)")
        job = {"make": kind, "base": identity(base_reader.files), "target": identity(target_reader.files)}
        with (
            resumable_directory(delta, job, resume=resume) as unfinished,
            Progress(target_reader.total_bytes, description="making the delta", unit="B") as progress,
        ):
            with RegionFile(unfinished, REGION_NAMES[kind], PREAMBLES[kind]) as regions:
                maker = (ExactMaker if kind == EXACT else AdditiveMaker)(
                    base_reader, target_reader, unfinished, regions, progress
                )
                tensors, digests = maker.write()
            files = copy_files(others, unfinished.folder / FILES_NAME if kind == EXACT else unfinished.folder)
            manifest = Manifest(
                format=kind,
                tool=f"vicuna {vicuna.__version__}",
                template=template,
                base_vocab_size=base_vocab_size,
                target_vocab_size=target_vocab_size,
                sources=dict(sources or {}),
                weights_sha256=regions.sha256,
                shards=tuple(maker.shards),
                index=None if target_reader.index is None else target_reader.index.decode(),
                files=files,
                tensors=tuple(tensors),
            )
            manifest.write(unfinished.folder / DELTA_MANIFEST)
            write_sums(unfinished.folder, manifest, digests)
    return DeltaSummary(
        format=format,
        num_tensors=len(tensors),
        num_whole=sum(tensor.base_name is None for tensor in tensors),
        num_corrections=sum(tensor.num_corrections for tensor in tensors),
        target_bytes=target_reader.total_bytes,
        delta_bytes=regions.position + (target_reader.total_bytes if kind == ADDITIVE else 0),
    )


def _from_json(path: Path, key: str, kind: type[Value]) -> Value | None:
    """A value of a JSON file of the model, or None where there is none."""
    value = read_model_json(path) if path.is_file() else None
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else None
