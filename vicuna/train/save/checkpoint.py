"""Checkpoints: the state from which a run resumes, bit-equal, on any number of ranks.

    DIR/checkpoints/step-00000500/
        model-0-of-2.safetensors, optimizer-0-of-2.safetensors, rng-0-of-2.safetensors    from rank 0
        model-1-of-2.safetensors, optimizer-1-of-2.safetensors, rng-1-of-2.safetensors    from rank 1
        state.json    the steps done, which are also the position in the data (see `packing`)
        COMPLETE      the manifest: size and SHA-256 of every file; written last

Each rank writes its shards, in fp32, and the header of its files says which rows of which tensors these are; so any
number of ranks reads its own shards by slices, and nothing is ever gathered. (torch.distributed.checkpoint writes as
fast but keeps this list in a pickle.) A checkpoint is written under a temporary name, synced to the disk and renamed;
COMPLETE comes after that, because in a mounted bucket a rename is a copy that may break off. A folder without it, or
that it does not describe, is never resumed from.

Before: the model. After: `saver` writes them while training goes on, `loop` restores.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.files import checked_name, sha256_file
from vicuna.io.jsonl import JsonObject, read_json
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.parallel import local_shard, shard_like, shard_start
from vicuna.train.ranks import Ranks
from vicuna.train.save.output import CHECKPOINTS
from vicuna.weights.files.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.files.tensors import Shard, Tensor, split_into_shards

COMPLETE = "COMPLETE"
STATE = "state.json"
MODEL, OPTIMIZER, RNG = "model", "optimizer", "rng"
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
}  # fmt: skip
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
CHUNK_ELEMENTS = 1 << 22


@dataclasses.dataclass(frozen=True)
class Part:
    """This rank's shard of a tensor: its rows from `first` on; the whole tensor has `total` rows.

    A scalar counts as one row.
    """

    tensor: torch.Tensor
    first: int
    total: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Part":
        """This rank's shard of a tensor."""
        return cls(local_shard(tensor.detach()), shard_start(tensor), tensor.shape[0] if tensor.ndim else 1)


Manifest = dict[str, JsonObject]
"""Size and SHA-256 of files, by name."""
State = dict[str, dict[str, Part]]
"""What one rank saves: per kind of file (model, optimizer, rng) its shards by name of the tensor."""


def state_of(model: ConversationModel, optimizer: torch.optim.Optimizer, *, is_first: bool) -> State:
    """This rank's shards of a run's state, not copied.

    Args:
        is_first: this rank also saves the tensors that are not sharded.
    """
    weights = {name: weight for name, weight in model.named_weights().items() if weight.requires_grad}
    assert all(weight in optimizer.state for weight in weights.values()), "gathered layers instead of the shards"
    moments = {
        f"{kind}/{name}": value for name, weight in weights.items() for kind, value in optimizer.state[weight].items()
    }
    return {
        MODEL: _parts(weights, is_first),
        OPTIMIZER: _parts(moments, is_first),
        RNG: {name: Part.of(state) for name, state in _rng_states().items()},
    }


def _parts(tensors: dict[str, torch.Tensor], is_first: bool) -> dict[str, Part]:
    return {name: Part.of(tensor) for name, tensor in tensors.items() if is_first or isinstance(tensor, DTensor)}


def write_state(folder: Path, state: State, rank: int, num_ranks: int) -> Manifest:
    """Write one rank's files.

    Returns:
        The manifest of these: size and SHA-256 by name.

    Raises:
        OSError: the disk refused.
    """
    manifest: Manifest = {}
    for kind, parts in state.items():
        if not parts:
            continue
        shard = _layout(f"{kind}-{rank}-of-{num_ranks}.safetensors", parts)

        def data_of(tensor: Tensor, parts: dict[str, Part] = parts) -> Iterable[memoryview]:
            return _chunks(parts[tensor.name].tensor)

        digests = write_checkpoint(folder, [shard], None, data_of)
        manifest[shard.file_name] = {"size": shard.size_bytes, "sha256": digests[shard.file_name]}
    return manifest


def _layout(file_name: str, parts: dict[str, Part]) -> Shard:
    rows = json.dumps({name: [part.first, part.total] for name, part in parts.items()})
    tensors = [Tensor(name, DTYPES[part.tensor.dtype], tuple(part.tensor.shape)) for name, part in parts.items()]
    (shard,), _ = split_into_shards(tensors, max_shard_bytes=sys.maxsize, metadata={"format": "pt", "rows": rows})
    return dataclasses.replace(shard, file_name=file_name)


def _chunks(tensor: torch.Tensor) -> Iterator[memoryview]:
    for part in tensor.flatten().split(CHUNK_ELEMENTS):
        yield memoryview(part.to("cpu").view(torch.uint8).numpy())


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return output_dir / CHECKPOINTS / f"step-{step:08d}"


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints whose files have the sizes of their manifest, oldest first."""
    return [path for path in sorted((output_dir / CHECKPOINTS).glob("step-*")) if is_whole(path)]


def is_whole(path: Path) -> bool:
    """Whether there is a manifest and every file in it has its size."""
    try:
        return all((path / name).stat().st_size == entry["size"] for name, entry in read_manifest(path).items())
    except (OSError, ValueError, AttributeError, TypeError, KeyError, VicunaError):
        return False


def read_manifest(path: Path) -> Manifest:
    """The manifest, COMPLETE: size and SHA-256 of every file."""
    manifest: Manifest = read_json(path / COMPLETE)
    return {checked_name(name, str(path / COMPLETE)): entry for name, entry in manifest.items()}


def damaged_files(path: Path, rank: int = 0, num_ranks: int = 1) -> list[str]:
    """The files of a checkpoint whose SHA-256 differs from the manifest; each rank checks some of them."""
    entries = sorted(read_manifest(path).items())
    return [name for name, entry in entries[rank::num_ranks] if sha256_file(path / name) != entry["sha256"]]


def newest_intact(output_dir: Path, ranks: Ranks) -> Path | None:
    """The newest checkpoint whose files all have their SHA-256; damaged ones are named and passed over."""
    names: list[str] = [path.name for path in (output_dir / CHECKPOINTS).glob("step-*")]
    names = json.loads(ranks.all_gather(json.dumps(names))[0])
    for name in sorted(names, reverse=True):
        path = output_dir / CHECKPOINTS / name
        damage = ""
        if not is_whole(path):
            damage = "it is not whole"
        elif files := _unreadable_or_damaged(path, ranks):
            damage = f"{files[0]} has not the bytes that were written"
        damage = next((text for text in ranks.all_gather(damage) if text), "")
        if not damage:
            return path
        log.warning(f"{path} is passed over: {damage}")
    return None


def _unreadable_or_damaged(path: Path, ranks: Ranks) -> list[str]:
    try:
        return damaged_files(path, ranks.rank, ranks.size)
    except OSError as error:
        return [Path(str(error.filename)).name]


def load_checkpoint(path: Path, model: ConversationModel, optimizer: torch.optim.Optimizer, rank: int = 0) -> int:
    """Restore this rank's shards of model and optimizer, and its random state.

    Returns:
        The number of steps done, which is also the position in the data.

    Raises:
        VicunaError: the checkpoint is damaged or of another model.
    """
    try:
        weights = {name: weight for name, weight in model.named_weights().items() if weight.requires_grad}
        with _SavedTensors(path, MODEL) as saved:
            if weights.keys() != saved.totals.keys():
                name = min(weights.keys() ^ saved.totals.keys())
                raise VicunaError(
                    f"{path} is of another model: {name} is in one of them only; choose another directory"
                )
            for name, weight in weights.items():
                saved.read_into(name, weight)
        with _SavedTensors(path, OPTIMIZER) as saved:
            for key in saved.totals:
                kind, _, name = key.partition("/")
                weight = weights[name]
                optimizer.state[weight][kind] = saved.read_like(key, weight)
        _restore_rng(path, rank)
        return int(read_json(path / STATE)["step"])
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise VicunaError(f"{path} is damaged ({error}); delete it to go on from the one before it") from None


class _SavedTensors:
    """The tensors of one kind in a checkpoint, from the files of all ranks. Use as a context manager."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.totals: dict[str, int] = {}
        self._parts: dict[str, list[tuple[int, CheckpointReader]]] = {}
        self._open = ExitStack()
        for file in sorted(path.glob(f"{kind}-*-of-*.safetensors")):
            reader = self._open.enter_context(CheckpointReader(file))
            rows = json.loads(json.loads(reader.shards[0].header)["__metadata__"]["rows"])
            for name, (first, total) in rows.items():
                self.totals[name] = total
                self._parts.setdefault(name, []).append((first, reader))

    def __enter__(self) -> "_SavedTensors":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read_like(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A saved tensor: sharded like `weight` if it has as many rows, else whole."""
        saved = self._parts[name][0][1].tensors[name]
        is_sharded = len(saved.shape) > 0 and self.totals[name] == weight.shape[0]
        shape = (len(local_shard(weight)), *saved.shape[1:]) if is_sharded else saved.shape
        value = torch.empty(shape, dtype=TORCH_DTYPES[saved.dtype], device=weight.device)
        value = shard_like(value, weight) if is_sharded else value
        self.read_into(name, value)
        return value

    @torch.no_grad()
    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Fill this rank's shard of `target`.

        Raises:
            ValueError: the saved tensor has another shape.
        """
        part = Part.of(target)
        rows = part.tensor if part.tensor.ndim else part.tensor.view(1)
        if self.totals[name] != part.total:
            raise ValueError(f"{name} has {self.totals[name]} rows, not {part.total}")
        missing = len(rows)
        for first, reader in self._parts[name]:
            saved = reader.tensors[name]
            if saved.shape[1:] != rows.shape[1:]:
                raise ValueError(f"{name} is saved as {saved}, not as {list(target.shape)}")
            num_saved = saved.shape[0] if saved.shape else 1
            start, end = max(first, part.first), min(first + num_saved, part.first + len(rows))
            if start < end:
                _read_rows(reader, saved, start - first, rows[start - part.first : end - part.first])
                missing -= end - start
        if missing:
            raise ValueError(f"{name} lacks {missing} rows")


def _read_rows(reader: CheckpointReader, saved: Tensor, first: int, rows: torch.Tensor) -> None:
    dtype = TORCH_DTYPES[saved.dtype]
    start = first * math.prod(saved.shape[1:]) * dtype.itemsize
    for part in rows.view(-1).split(CHUNK_ELEMENTS):
        data = bytearray(reader.read(saved.name, start, part.numel() * dtype.itemsize))
        part.copy_(torch.frombuffer(data, dtype=dtype))
        start += len(data)


def _rng_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_rng(path: Path, rank: int) -> None:
    """Restore the random state of this rank; a rank that the checkpoint does not have keeps its own."""
    for file in path.glob(f"{RNG}-{rank}-of-*.safetensors"):
        with CheckpointReader(file) as reader:
            states = {
                name: torch.frombuffer(bytearray(reader.read(name)), dtype=torch.uint8) for name in reader.tensors
            }
        torch.set_rng_state(states["cpu"])
        if torch.cuda.is_available() and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])
