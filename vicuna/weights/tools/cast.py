"""A model with another dtype or in other files: fp32 as bf16, `.bin` as safetensors, one shard as several.

`vicuna weights cast` calls it. Tensors that are not F16, BF16, F32 or F64 keep their dtype. Tied weights that a `.bin`
file holds under two names are written once, if the model's config ties them, as transformers writes them.
"""

from collections.abc import Iterator
from pathlib import Path

from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.files.manifest import Manifest
from vicuna.weights.files.new_model import NewModel, read_config, write_model
from vicuna.weights.files.numbers import DTYPES, TorchName, cast
from vicuna.weights.files.other_files import other_files
from vicuna.weights.files.tensors import FLOATS, MAX_SHARD_BYTES, Tensor, split_into_shards
from vicuna.weights.files.threads import map_in_threads
from vicuna.weights.files.unfinished import identity


def cast_model(
    model: Path,
    target: Path,
    *,
    dtype: TorchName | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    resume: bool = True,
    sources: dict[str, dict[str, str]] | None = None,
) -> Manifest:
    """Write `model` as the folder `target`, with its weights in `dtype` (their own by default), as safetensors.

    Args:
        dtype: PyTorch's name.
        max_shard_bytes: the largest file's data.
        resume: continue an earlier run of the same call that was killed.
        sources: where the model was downloaded from, for the manifest.

    Raises:
        VicunaError: the model cannot be read or is a delta, or `target` holds something.
    """
    refuse_delta(model)
    with CheckpointReader(model) as reader:
        config = read_config(reader.folder)
        skipped = set(reader.aliases) if config.get("tie_word_embeddings") else set()

        def new_dtype(tensor: Tensor) -> str:
            return DTYPES[dtype] if dtype and tensor.dtype in (*FLOATS, "F64") else tensor.dtype

        def data_of(tensor: Tensor) -> Iterator[bytes]:
            source = reader.tensors[tensor.name]
            if source.dtype == tensor.dtype:
                return reader.chunks(tensor.name)
            return map_in_threads(lambda chunk: cast(chunk, source.dtype, tensor.dtype), reader.chunks(tensor.name))

        tensors = [
            Tensor(tensor.name, new_dtype(tensor), tensor.shape)
            for tensor in reader.tensors.values()
            if tensor.name not in skipped
        ]
        shards, index = split_into_shards(tensors, max_shard_bytes=max_shard_bytes)
        changes: dict[str, str] = {}
        if dtype:
            changes = {name: dtype for name in ("torch_dtype", "dtype") if name in config} or {"torch_dtype": dtype}
        new = NewModel(shards, index, data_of, other_files(reader.folder), config=changes, sources=sources or {})
        job = {"cast": dtype, "max_shard_bytes": max_shard_bytes, "model": identity(reader.files)}
        return write_model(new, target, job, description="casting", resume=resume)
