"""Apply a delta: a base and a `delta` folder in, the target model out, verified bit by bit.

The command `vicuna.apply_delta` calls it. A few frames are in memory whatever the model's size, the model's folder gets
its name only when every hash is right, and a killed run is resumed. `restore` decodes the tensors; deltas without a
manifest, as they were published in 2023, are applied by `published`.
"""

from collections.abc import Mapping
from pathlib import Path

from vicuna.errors import UsageError, VerificationError, require
from vicuna.io.files import copy_in_folder, ensure_free_space
from vicuna.io.log import Progress
from vicuna.weights.delta.layout import DAMAGED, files_folder, read_delta
from vicuna.weights.delta.published import apply_published
from vicuna.weights.delta.restore import open_restorer
from vicuna.weights.files.checkpoint import CheckpointReader, check_exists
from vicuna.weights.files.detect import has_manifest, kind_of, refuse_delta
from vicuna.weights.files.manifest import DELTA_MANIFEST, MODEL_MANIFEST, Manifest
from vicuna.weights.files.shard_writer import ShardWriter
from vicuna.weights.files.tensors import Tensor
from vicuna.weights.files.unfinished import identity, resumable_directory, unfinished_bytes


def apply_delta(
    base: Path,
    delta: Path,
    target: Path,
    *,
    trim_vocabulary: bool = False,
    resume: bool = True,
    sources: Mapping[str, dict[str, str]] | None = None,
) -> Manifest:
    """Make the model `target` out of `base` and `delta`, and verify it.

    Args:
        trim_vocabulary: a delta without a manifest may lack rows that the base has (`published`).
        resume: continue an earlier run of the same call that was killed.
        sources: where base and delta were downloaded from, for the manifest of a delta that has none.

    Returns:
        The manifest, whose every hash the new files have.

    Raises:
        VerificationError: `base` is not the delta's base, or the delta is damaged; no folder is left.
        VicunaError: something cannot be read, `target` exists, or the disk is too full.
    """
    require("zstandard", "export")
    check_exists(base, "the folder of the delta's base")
    check_exists(delta, "the folder of a delta")
    if not has_manifest(delta) and kind_of(delta) == "additive delta":
        return apply_published(base, delta, target, trim_vocabulary=trim_vocabulary, resume=resume, sources=sources)
    manifest = read_delta(delta)
    if trim_vocabulary:
        raise UsageError(f"--trim-vocabulary: {delta} has a manifest that says which rows it has; leave the flag out")
    refuse_delta(base)
    with CheckpointReader(base) as reader:
        check_base_tensors(manifest, reader)
        shards = manifest.target_shards()
        files = files_folder(delta, manifest)
        needed = sum(shard.size_bytes for shard in shards) + sum(
            (files / name).stat().st_size for name in manifest.files
        )
        ensure_free_space(target, needed - unfinished_bytes(target), f"the model {target}")
        total = sum(tensor.size_bytes for shard in shards for tensor in shard.tensors)
        job = {"apply": identity([delta / DELTA_MANIFEST]), "base": identity(reader.files)}
        with resumable_directory(target, job, resume=resume) as unfinished:
            with (
                open_restorer(manifest, reader, delta) as restorer,
                Progress(total, description="applying the delta", unit="B") as progress,
            ):
                index = None if manifest.index is None else manifest.index.encode()
                # A file is its header and its tensors, each of which is checked: it has the manifest's hash then.
                writer = ShardWriter(unfinished, progress, restorer.data_of, restorer.record_of, hash_files=False)
                records, _ = writer.write(shards, index)
            for record, expected in zip(records, manifest.tensors, strict=True):
                if record != expected:  # the journal was changed
                    raise VerificationError(f"tensor {record.name!r} does not come out with its hash; {DAMAGED}")
            for name in manifest.files:
                copy_in_folder(files / name, unfinished.folder / name)
            manifest.write(unfinished.folder / MODEL_MANIFEST)
    return manifest


def check_base_tensors(manifest: Manifest, base: CheckpointReader) -> None:
    """See that the base has a tensor of the right shape and dtype for each difference.

    Raises:
        VerificationError: it has not; the message names the first one.
    """
    for record in manifest.tensors:
        if record.base_name is None or record.base_dtype is None or record.base_shape is None:
            continue
        wanted = Tensor(record.base_name, record.base_dtype, record.base_shape)
        found = base.tensors.get(record.base_name)
        if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            has = "no such tensor" if found is None else str(found)
            raise VerificationError(
                f"{base.path} is not this delta's base: the delta needs {wanted}, the base has {has}; "
                "give the model from which the delta was made"
            )
