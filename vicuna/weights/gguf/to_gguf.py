"""A Hugging Face folder to one GGUF file, a few rows of one tensor at a time.

In this order: read and check the configuration, the tokenizer and every tensor's shape; choose types; see that the disk
has room and that the types can be encoded; write. So a run fails before it has written anything, except where a number
does not fit its type. The file gets its name when its last byte is on disk. `vicuna.export` is the command, `check`
compares the result with the model.

Letters: O output rows, I input columns, N heads, D head size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.files import check_is_file, ensure_free_space
from vicuna.io.log import Progress, info
from vicuna.io.model_files import read_model_object
from vicuna.weights.files.checkpoint import CheckpointReader, check_exists
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.files.numbers import NUMPY_DTYPES, Floats, to_float32
from vicuna.weights.files.tensors import ROPE_BUFFER_SUFFIX, Tensor
from vicuna.weights.files.threads import map_in_threads
from vicuna.weights.gguf.card import Card, card_metadata
from vicuna.weights.gguf.config import HubConfig, read_config, rope_factors
from vicuna.weights.gguf.config_to_gguf import config_metadata
from vicuna.weights.gguf.container import GGUFTensor, Value, assign_offsets, build_header, string, uint32, write_gguf
from vicuna.weights.gguf.names import ROPE_FACTORS, heads_to_permute, model_order, permute, to_gguf
from vicuna.weights.gguf.quantize import (
    GGML_TYPES,
    K_TYPES,
    check_can_make,
    encode,
    native_quantizer,
)
from vicuna.weights.gguf.types import FILE_TYPES, FileType, GGMLType, ModelShape, tensor_type
from vicuna.weights.gguf.vocabulary.to_gguf import read_vocabulary

CHUNK_NUMBERS = 1 << 20  # numbers of one tensor in memory at a time (at least a head's rows, where they are permuted)
QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION: of the block types themselves


@dataclass(frozen=True)
class Exported:
    """What was written: the file's tensors and numbers, its size, and the size of the checkpoint's tensors."""

    num_tensors: int
    num_parameters: int
    size_bytes: int
    source_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.size_bytes / max(self.num_parameters, 1)


def export_gguf(
    model: Path,
    output: Path,
    file_type: FileType,
    *,
    card: Card | None = None,
    pre_tokenizer: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write `model` as the GGUF file `output`.

    Args:
        card: name, licence and source, where the user states them.
        pre_tokenizer: llama.cpp's name for a BPE tokenizer's cut that is not known here.

    Raises:
        VicunaError: the model is a delta, of another family, incomplete, without its tokenizer, or has numbers that the
            type cannot hold; the output is there; the disk is too full.
    """
    check_is_file(output)
    if output.exists() and not overwrite:
        raise VicunaError(f"{output} already exists; choose another name, or give --overwrite")
    check_exists(model, "a Hugging Face model folder")
    refuse_delta(model)
    if not model.is_dir():
        raise VicunaError(f"{model} is not a folder; give a Hugging Face model folder")
    if not (model / "config.json").is_file():
        raise VicunaError(f"{model} has no config.json; give a whole Hugging Face model folder")
    config = read_config(read_model_object(model / "config.json"), str(model / "config.json"))
    with CheckpointReader(model) as reader:
        sources = _sources(reader, config)
        vocabulary = read_vocabulary(model, config.vocab_size, pre_tokenizer)
        tensors = choose_types(sources, config, file_type)
        num_parameters = sum(math.prod(tensor.shape) for tensor in sources.values())
        metadata = {
            "general.architecture": string(config.architecture.name),
            **card_metadata(model, card or Card(), num_parameters),
            **config_metadata(config),
            "general.file_type": uint32(file_type.number),
            "general.quantization_version": uint32(QUANTIZATION_VERSION),
            **vocabulary.metadata(),
        }
        check_can_make({tensor.type for tensor in tensors})
        size = _size(metadata, tensors)
        ensure_free_space(output, size, f"the GGUF file {output}")
        source_bytes = sum(tensor.size_bytes for tensor in sources.values())
        with Progress(source_bytes, description=f"exporting as {file_type.name}", unit="B") as progress:
            writer = _Encoder(reader, sources, config, progress)
            write_gguf(output, metadata, tensors, writer.data_of, overwrite=overwrite)
        return Exported(len(tensors), num_parameters, output.stat().st_size, source_bytes)


def _size(metadata: dict[str, Value], tensors: list[GGUFTensor]) -> int:
    last = assign_offsets(tensors)[-1]
    return len(build_header(metadata, tensors)) + last.offset + last.size_bytes + 64


def _sources(reader: CheckpointReader, config: HubConfig) -> dict[str, Tensor]:
    """The checkpoint's tensors by their GGUF name, complete and of the shapes that the configuration asks for.

    Raises:
        VicunaError: one is missing, left over, of another shape or of a dtype that is not read.
    """
    found: dict[str, Tensor] = {}
    for tensor in reader.tensors.values():
        if tensor.name.endswith(ROPE_BUFFER_SUFFIX) or (config.is_tied and tensor.name == "lm_head.weight"):
            continue
        name = to_gguf(tensor.name)
        if name is None or name in found:
            raise VicunaError(
                f"{reader.path}: tensor {tensor} has no place in a {config.model_type} model, so it would be lost; "
                "only plain models of that family are exported (merge adapters first)"
            )
        if tensor.dtype not in NUMPY_DTYPES:
            raise VicunaError(
                f"{reader.path}: tensor {tensor} is not of {', '.join(NUMPY_DTYPES)}; cast the model first"
            )
        found[name] = tensor
    expected = expected_shapes(config, set(found))
    for name, shape in expected.items():
        if name not in found:
            tied = ", or set tie_word_embeddings in config.json if the embedding is its output" * name.startswith(
                "output."
            )
            raise VicunaError(f"{reader.path} has no tensor for {name}; fetch the checkpoint again{tied}")
        if found[name].shape != shape:
            raise VicunaError(
                f"{reader.path}: tensor {found[name]} should be [{', '.join(map(str, shape))}] by config.json; "
                "the configuration is another model's, or the vocabulary was resized in one of the two only"
            )
    if left_over := sorted(set(found) - set(expected)):
        raise VicunaError(
            f"{reader.path}: tensor {found[left_over[0]]} is more than config.json describes "
            f"({config.num_layers} layers); the configuration is another model's"
        )
    return {name: found[name] for name in sorted(found, key=model_order)}


def expected_shapes(config: HubConfig, found: set[str]) -> dict[str, tuple[int, ...]]:
    """GGUF names and shapes (rows first) of a model's tensors; an optional bias only if it is among `found`."""
    hidden, heads = config.hidden_size, config.num_heads * config.head_dim
    key_values = config.num_key_value_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (heads, hidden),
        "attn_k": (key_values, hidden),
        "attn_v": (key_values, hidden),
        "attn_output": (hidden, heads),
        "ffn_norm": (hidden,),
        "ffn_gate": (config.intermediate_size, hidden),
        "ffn_up": (config.intermediate_size, hidden),
        "ffn_down": (hidden, config.intermediate_size),
    }
    if config.architecture.has_qk_norm:
        layer |= {"attn_q_norm": (config.head_dim,), "attn_k_norm": (config.head_dim,)}
    must_have = {"attn_q", "attn_k", "attn_v"} if config.architecture.has_qkv_bias else set()
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab_size, hidden)}
    for number in range(config.num_layers):
        for part, shape in layer.items():
            shapes[f"blk.{number}.{part}.weight"] = shape
            bias = f"blk.{number}.{part}.bias"
            if bias in found or part in must_have:
                shapes[bias] = shape[:1]
    shapes["output_norm.weight"] = (hidden,)
    if not config.is_tied:
        shapes["output.weight"] = (config.vocab_size, hidden)
    return shapes


def choose_types(sources: dict[str, Tensor], config: HubConfig, file_type: FileType) -> list[GGUFTensor]:
    """The file's tensors, each with the type that llama.cpp's recipe gives it."""
    is_eightfold = config.num_layers == 80 and (
        config.architecture.name == "qwen2" or config.num_heads != config.num_key_value_heads
    )
    model = ModelShape(config.num_layers, config.is_tied, is_eightfold)
    tensors = []
    for name, tensor in sources.items():
        kind = tensor_type(file_type, name, tensor.shape, model)
        if kind in K_TYPES and file_type is FILE_TYPES["q4_0"] and native_quantizer() is None:
            info(f"{name} becomes q8_0 instead of llama.cpp's q6_k, which needs xllamacpp")
            kind = GGMLType.Q8_0
        tensors.append(GGUFTensor(name, kind, tensor.shape))
    if (factors := rope_factors(config)) is not None:
        tensors.insert(0, GGUFTensor(ROPE_FACTORS, GGMLType.F32, factors.shape))
    return tensors


class _Rows(NamedTuple):
    """A few rows of one tensor, as they are in the checkpoint.

    Attributes:
        columns: None for a tensor of one dimension.
        heads: how many heads these rows are, if they are to be permuted.
    """

    data: bytes
    dtype: str
    columns: int | None
    heads: int | None


class _Encoder:
    """Encodes the file's tensors, a few rows at a time."""

    def __init__(
        self, reader: CheckpointReader, sources: dict[str, Tensor], config: HubConfig, progress: Progress
    ) -> None:
        self.reader, self.sources, self.config, self.progress = reader, sources, config, progress

    def data_of(self, target: GGUFTensor) -> Iterator[bytes]:
        """The bytes of a tensor of the file."""
        if target.name == ROPE_FACTORS:
            factors = rope_factors(self.config)
            assert factors is not None
            yield factors.astype("<f4").tobytes()
            return
        yield from map_in_threads(lambda rows: self._encode(rows, target), self._rows(target))

    def _rows(self, target: GGUFTensor) -> Iterator[_Rows]:
        source, config = self.sources[target.name], self.config
        heads = heads_to_permute(target.name, config.architecture, config.num_heads, config.num_key_value_heads)
        columns = source.shape[1] if len(source.shape) > 1 else 1
        rows_at_once = max(1, CHUNK_NUMBERS // columns)
        if heads is not None:  # whole heads: their rows change places among themselves
            rows_at_once = max(1, rows_at_once // config.head_dim) * config.head_dim
        row_bytes = source.size_bytes // source.shape[0]
        for first in range(0, source.shape[0], rows_at_once):
            rows = min(rows_at_once, source.shape[0] - first)
            data = self.reader.read(source.name, first * row_bytes, rows * row_bytes)
            self.progress.update(len(data))
            yield _Rows(
                data,
                source.dtype,
                columns if len(source.shape) > 1 else None,
                None if heads is None else rows // config.head_dim,
            )

    def _encode(self, rows: _Rows, target: GGUFTensor) -> bytes:
        shape = (-1,) if rows.columns is None else (-1, rows.columns)
        if GGML_TYPES[rows.dtype] == target.type:  # bit for bit, whatever the bits are
            bits = np.frombuffer(rows.data, NUMPY_DTYPES[rows.dtype]).reshape(shape)
            return rows.data if rows.heads is None else permute(bits, rows.heads).tobytes()
        values: Floats = to_float32(rows.data, rows.dtype).reshape(shape)
        if rows.heads is not None:
            values = permute(values, rows.heads)
        return encode(values, target.type, self.sources[target.name].name)
