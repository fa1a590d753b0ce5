"""Merge a LoRA adapter into its base, streamed, without peft or torch.

Stands on `adapter`, which reads and checks what peft saved. A changed weight is W + scaling * B A, computed in fp32 a
few rows at a time and rounded once to the dtype of W; scaling is alpha / rank, or alpha / sqrt(rank) with rsLoRA. With
DoRA each row is then scaled to the learned magnitude. Source: arXiv 2106.09685 (LoRA), 2402.09353 (DoRA).

Letters: O rows of a weight, I columns, R rank.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.weights.delta.pairs import EMBEDDING, HEAD, VOCABULARY
from vicuna.weights.files.checkpoint import CHUNK_BYTES, CheckpointReader, check_exists
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.files.manifest import Manifest
from vicuna.weights.files.new_model import NewModel, read_config, write_model
from vicuna.weights.files.numbers import Floats, cast
from vicuna.weights.files.other_files import other_files
from vicuna.weights.files.tensors import ELEMENT_BYTES, FLOATS, Tensor, split_into_shards
from vicuna.weights.files.unfinished import identity
from vicuna.weights.tools.adapter import Adapter, TensorChange, check_adapter

# Files that an adapter may bring, which then replace the base's.
ADAPTER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "vicuna_template.json",
)


def merge_lora(
    base: Path,
    adapter: Path,
    target: Path,
    *,
    resume: bool = True,
    sources: dict[str, dict[str, str]] | None = None,
) -> Manifest:
    """Write the model `target`: `base` with `adapter` merged into it.

    Dtypes are the base's. Files beside the weights are the base's, or the adapter's where it has its own (tokenizer,
    template). A head that is tied to the embedding, and that the adapter changes, becomes a tensor of its own.

    Raises:
        VicunaError: the adapter is not whole, is all zeros, does not fit the base or is of another kind; `target` holds
            something.
    """
    base, adapter = Path(base), Path(adapter)
    check_exists(base, "the folder of the model that the adapter was trained on")
    check_adapter(adapter)
    refuse_delta(base)
    with Adapter(adapter) as changes, CheckpointReader(base) as reader:
        merger = _Merger(reader, changes)
        tensors = [merger.new_tensor(name) for name in (*reader.tensors, *merger.added)]
        shards, index = split_into_shards(tensors)
        new = NewModel(
            shards,
            index,
            merger.data_of,
            _files_of(reader.folder, adapter),
            config=merger.config(tensors),
            sources=sources or {},
        )
        job = {"merge": identity(changes.reader.files), "base": identity(reader.files)}
        return write_model(new, Path(target), job, description="merging the adapter", resume=resume)


class _Merger:
    """Computes the merged tensors.

    Attributes:
        added: tensors that the merged model has and the base has not: a head that was tied to the embedding.
    """

    def __init__(self, base: CheckpointReader, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        self.added = (
            [HEAD] if HEAD in adapter.changes and HEAD not in base.tensors and EMBEDDING in base.tensors else []
        )
        for name, change in adapter.changes.items():
            if name not in base.tensors and name not in self.added:
                raise VicunaError(
                    f"{adapter.folder} changes {name!r}, which {base.path} does not have; "
                    f"give the base that it was trained on ({adapter.config.get('base_model_name_or_path')})"
                )
            self._check_fit(name, change)

    def new_tensor(self, name: str) -> Tensor:
        """Name, dtype and shape of a merged tensor; one that the adapter replaces may have another shape."""
        source, change = self._source(name), self.adapter.changes.get(name)
        shape = self.adapter.reader.tensors[change.whole].shape if change and change.whole else source.shape
        return Tensor(name, source.dtype, shape)

    def config(self, tensors: list[Tensor]) -> JsonObject:
        """Values of config.json that the merged weights change."""
        changes: JsonObject = {"tie_word_embeddings": False} if self.added else {}
        rows = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.name in (EMBEDDING, HEAD)}
        old = self.base.tensors.get(EMBEDDING)
        if old is not None and rows.get(EMBEDDING, old.shape[0]) != old.shape[0]:
            if rows.get(HEAD, rows[EMBEDDING]) != rows[EMBEDDING]:
                raise VicunaError(
                    f"{self.adapter.folder} has {rows[EMBEDDING]} rows for {EMBEDDING} but {HEAD} has {rows[HEAD]}; "
                    "train both with modules_to_save"
                )
            if "vocab_size" in read_config(self.base.folder):
                changes["vocab_size"] = rows[EMBEDDING]
        return changes

    def data_of(self, tensor: Tensor) -> Iterator[bytes]:
        """The merged tensor's bytes."""
        change = self.adapter.changes.get(tensor.name)
        reader, name = self.base, self._source(tensor.name).name
        if change and change.whole:
            reader, name = self.adapter.reader, change.whole
        source = reader.tensors[name]
        if change is None or not change.low_rank:
            for chunk in reader.chunks(name):
                yield cast(chunk, source.dtype, tensor.dtype)
            return
        left, right, magnitudes = self._factors(change)  # (O, R), (R, I), (O,)
        num_columns = tensor.shape[1]
        num_rows, row_bytes = max(1, CHUNK_BYTES // (4 * num_columns)), num_columns * ELEMENT_BYTES[source.dtype]
        for start in range(0, tensor.shape[0], num_rows):
            data = reader.read(name, start * row_bytes, num_rows * row_bytes)
            rows = np.frombuffer(cast(data, source.dtype, "F32"), "<f4").reshape(-1, num_columns)
            merged = rows + change.scaling * (left[start : start + num_rows] @ right)
            if magnitudes is not None:
                merged *= (magnitudes[start : start + num_rows] / np.linalg.norm(merged, axis=1))[:, None]
            yield cast(merged.astype("<f4").tobytes(), "F32", tensor.dtype)

    def _source(self, name: str) -> Tensor:
        """The base's tensor that is changed."""
        return self.base.tensors[EMBEDDING if name in self.added else name]

    def _factors(self, change: TensorChange) -> tuple[Floats, Floats, Floats | None]:
        """The matrices whose product is added, (O, R) and (R, I), and with DoRA the rows' magnitudes, (O,)."""
        a, b = (self.adapter.floats(change.low_rank[side]) for side in "AB")
        magnitudes = self.adapter.floats(change.magnitude).reshape(-1) if change.magnitude else None
        return (a.T, b.T, magnitudes) if change.is_embedding else (b, a, magnitudes)

    def _check_fit(self, name: str, change: TensorChange) -> None:
        tensor = self.new_tensor(name)
        if not change.low_rank:
            old = self._source(name)
            if tensor.shape != old.shape and name not in VOCABULARY:
                raise VicunaError(
                    f"{self.adapter.folder} has {name} as {list(tensor.shape)}, {self.base.path} has {old}; "
                    "give the base that it was trained on"
                )
            return
        a, b = (self.adapter.reader.tensors[change.low_rank[side]].shape for side in "AB")
        product = (a[1], b[0]) if change.is_embedding else (b[0], a[1])
        if tensor.shape != product or tensor.dtype not in FLOATS:
            raise VicunaError(
                f"{self.adapter.folder} changes {name} by {list(product)}, {self.base.path} has {tensor}; "
                "give the base that it was trained on, in F16, BF16 or F32"
            )


def _files_of(base: Path, adapter: Path) -> dict[str, Path]:
    """The base's files, replaced by the adapter's where it has `ADAPTER_FILES`."""
    own = {name: adapter / name for name in ADAPTER_FILES if (adapter / name).is_file()}
    files = {**other_files(base), **own}
    files.pop("adapter_config.json", None)  # it would have transformers look for an adapter
    return files
