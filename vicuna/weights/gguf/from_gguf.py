"""A GGUF file to a Hugging Face folder: tensor names, the order of the rows of q and k, block types to plain dtypes.

Whatever the file says is checked before it is used, and the tensors' shapes are compared with its metadata before the
first is read. The inverse of `to_gguf`. `vicuna.import_gguf` is the command; `weights.small_model` makes the small
model this way.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.files import atomic_directory, ensure_free_space
from vicuna.io.jsonl import JsonObject, write_json
from vicuna.io.log import Progress
from vicuna.weights.files.checkpoint import write_checkpoint
from vicuna.weights.files.numbers import NUMPY_DTYPES, Floats
from vicuna.weights.files.tensors import MAX_SHARD_BYTES, Tensor, split_into_shards
from vicuna.weights.files.threads import map_in_threads
from vicuna.weights.gguf.config import HubConfig, read_config
from vicuna.weights.gguf.config_from_gguf import Metadata, build_config, generation_config
from vicuna.weights.gguf.container import GGUFFile, GGUFTensor
from vicuna.weights.gguf.names import ROPE_FACTORS, heads_to_permute, to_hugging_face, unpermute
from vicuna.weights.gguf.quantize import GGML_TYPES, decode, from_float32
from vicuna.weights.gguf.to_gguf import CHUNK_NUMBERS, expected_shapes
from vicuna.weights.gguf.types import GGMLType
from vicuna.weights.gguf.vocabulary.from_gguf import GGUFTokenizer


class GGUFModel:
    """A GGUF file of the LLaMA family, read as a Hugging Face model. Use as a context manager.

    Args:
        dtype: the weights' dtype, one of FLOATS, or None for the file's own (BF16 where it is quantized).

    Raises:
        VicunaError: the file is damaged, of another architecture, or contradicts itself.
    """

    def __init__(self, path: Path, dtype: str | None = None) -> None:
        self.path = path
        self.file = GGUFFile(path)
        self.metadata = Metadata(path, self.file.metadata)
        _ = self.metadata.architecture
        self.tokenizer = GGUFTokenizer(self.metadata)
        self.dtype = dtype or self._own_dtype()
        with self.file:
            names = set(self.file.tensors) - {ROPE_FACTORS}
            self._config = build_config(
                self.metadata, names, len(self.tokenizer.tokens), self.dtype, self._rope_factors()
            )
        self.shape: HubConfig = read_config(self._config, str(path))
        self._check_tensors(names)

    def config(self) -> JsonObject:
        """`config.json`."""
        return self._config

    def generation_config(self) -> JsonObject:
        """`generation_config.json`."""
        return generation_config(self.metadata, len(self.tokenizer.tokens))

    def tokenizer_config(self) -> JsonObject:
        """`tokenizer_config.json`."""
        return self.tokenizer.tokenizer_config(self.shape.context_length)

    def tensors(self) -> dict[str, Tensor]:
        """Hugging Face's names, dtypes and shapes of the tensors, by their GGUF name, in the file's order."""
        found = {}
        for name, tensor in self.file.tensors.items():
            if name != ROPE_FACTORS:
                hub_name = to_hugging_face(name)
                assert hub_name is not None, name
                found[name] = Tensor(hub_name, self.dtype, tensor.shape)
        return found

    def data_of(self, name: str) -> Iterator[bytes]:
        """A tensor's bytes in `dtype`, a few rows at a time, by its GGUF name."""
        tensor = self.file.tensors[name]
        return map_in_threads(lambda rows: self._decode(tensor, *rows), self._rows(tensor))

    def _heads(self, tensor: GGUFTensor) -> int | None:
        shape = self.shape
        return heads_to_permute(tensor.name, shape.architecture, shape.num_heads, shape.num_key_value_heads)

    def _rows(self, tensor: GGUFTensor) -> Iterator[tuple[bytes, int | None]]:
        if len(tensor.shape) == 1:
            yield self.file.read(tensor.name), self._heads(tensor)
            return
        rows, columns = tensor.shape  # (O, I)
        at_once = max(1, CHUNK_NUMBERS // columns)
        is_permuted = self._heads(tensor) is not None
        if is_permuted:
            at_once = max(1, at_once // self.shape.head_dim) * self.shape.head_dim
        for first in range(0, rows, at_once):
            count = min(at_once, rows - first)
            yield self.file.read(tensor.name, first, count), count // self.shape.head_dim if is_permuted else None

    def _decode(self, tensor: GGUFTensor, data: bytes, heads: int | None) -> bytes:
        columns = tensor.shape[-1] if len(tensor.shape) > 1 else 1
        if GGML_TYPES[self.dtype] == tensor.type:  # bit for bit, whatever the bits are
            bits = np.frombuffer(data, NUMPY_DTYPES[self.dtype]).reshape(-1, columns)
            return data if heads is None else unpermute(bits, heads).tobytes()
        values = decode(data, tensor.type, columns if len(tensor.shape) > 1 else tensor.shape[0])
        if heads is not None:
            values = unpermute(values.reshape(-1, columns), heads)
        return from_float32(values, self.dtype, tensor.name)

    def _own_dtype(self) -> str:
        matrices = {tensor.type for tensor in self.file.tensors.values() if len(tensor.shape) > 1}
        own = {kind.name for kind in matrices} if matrices <= set(GGML_TYPES.values()) else set()
        return own.pop() if len(own) == 1 else "F32" if "F32" in own else "BF16"

    def _rope_factors(self) -> Floats | None:
        tensor = self.file.tensors.get(ROPE_FACTORS)
        if tensor is None:
            return None
        if tensor.type != GGMLType.F32 or len(tensor.shape) != 1:
            raise VicunaError(f"{self.path}: {tensor} is not a row of F32 numbers; fetch it again")
        factors: Floats = decode(self.file.read(ROPE_FACTORS), GGMLType.F32, tensor.shape[0])[0]
        return factors

    def _check_tensors(self, names: set[str]) -> None:
        expected = expected_shapes(self.shape, names)
        for name in names:
            if name not in expected:
                raise VicunaError(
                    f"{self.path}: tensor {name!r} has no place in a plain {self.shape.architecture.name} model of "
                    f"{self.shape.num_layers} layers; nothing else converts"
                )
        for name, shape in expected.items():
            if name not in names:
                raise VicunaError(f"{self.path} has no tensor {name}; fetch a complete GGUF file")
            if self.file.tensors[name].shape != shape:
                raise VicunaError(
                    f"{self.path}: tensor {self.file.tensors[name]} should be [{', '.join(map(str, shape))}] by its "
                    "metadata; fetch it again"
                )


def import_gguf(
    source: Path, folder: Path, dtype: str | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
) -> GGUFModel:
    """Write the folder `folder`: the GGUF file `source` as a Hugging Face model.

    Raises:
        VicunaError: the file cannot be read as one (see `GGUFModel`), the folder holds something, the disk is too full.
    """
    model = GGUFModel(source, dtype)
    size = sum(tensor.size_bytes for tensor in model.tensors().values())
    ensure_free_space(folder, size + (64 << 20), f"the model {folder}")
    with atomic_directory(folder) as temporary:
        write_model(model, temporary, f"importing {source.name}", max_shard_bytes)
    return model


def write_model(model: GGUFModel, folder: Path, description: str, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write weights, configuration and tokenizer into an existing folder."""
    tensors = model.tensors()
    shards, index = split_into_shards(tensors.values(), max_shard_bytes=max_shard_bytes)
    gguf_names = {tensor.name: name for name, tensor in tensors.items()}
    total = sum(shard.size_bytes for shard in shards)
    with model.file, Progress(total, description=description, unit="B") as progress:

        def data_of(tensor: Tensor) -> Iterator[bytes]:
            for chunk in model.data_of(gguf_names[tensor.name]):
                yield chunk
                progress.update(len(chunk))

        write_checkpoint(folder, shards, index, data_of)
    write_json(folder / "config.json", model.config())
    write_json(folder / "generation_config.json", model.generation_config())
    write_json(folder / "tokenizer_config.json", model.tokenizer_config())
    model.tokenizer.write(folder)
