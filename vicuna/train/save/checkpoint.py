"""Checkpoints: everything a run needs to go on as if it had never stopped, on as many ranks as it then has.

    DIR/checkpoints/step-00000500/
        model-0-of-2.safetensors, optimizer-0-of-2.safetensors, rng-0-of-2.safetensors    from rank 0
        model-1-of-2.safetensors, optimizer-1-of-2.safetensors, rng-1-of-2.safetensors    from rank 1
        state.json    the steps done, which are also the place in the data (see `packing`)
        COMPLETE      the size and SHA-256 of every file; written last

Each rank writes the rows it holds, in fp32, and its files say which rows of which tensors these are; so any number of
ranks finds its own rows again by reading slices, and nothing is ever gathered. (torch.distributed.checkpoint writes as
fast but keeps this very list in a pickle.) A checkpoint is filled under a temporary name, synced to the disk and
renamed; COMPLETE comes after that, because in a mounted bucket a rename is a copy that may break off. A folder without
it, or that it does not describe, is never resumed from.

Before: `model`. After: `saver` writes them while training goes on, `loop` restores.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.parallel import first_row, local, rows_like
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
    """The rows of one tensor that a rank holds: `first` is their place in the whole, which has `total` rows.

    A tensor without rows, a single number, counts as one row.
    """

    tensor: torch.Tensor
    first: int
    total: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Part":
        """This rank's part of a tensor."""
        return cls(local(tensor.detach()), first_row(tensor), tensor.shape[0] if tensor.ndim else 1)


State = dict[str, dict[str, Part]]
"""What one rank saves: per kind of file (model, optimizer, rng) the parts by name."""


def state_of(model: ConversationModel, optimizer: torch.optim.Optimizer, *, is_first: bool) -> State:
    """This rank's part of a run's state, not copied.

    Args:
        is_first: this rank also saves what every rank has whole.
    """
    weights = {name: weight for name, weight in model.named_weights().items() if weight.requires_grad}
    assert all(weight in optimizer.state for weight in weights.values()), "gathered layers in the place of the shards"
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


def write_state(folder: Path, state: State, rank: int, num_ranks: int) -> dict[str, dict[str, Any]]:
    """Write one rank's files.

    Returns:
        Size and SHA-256 of each, by name.

    Raises:
        OSError: the disk refused.
    """
    marks = {}
    for kind, parts in state.items():
        if not parts:
            continue
        shard = _plan(f"{kind}-{rank}-of-{num_ranks}.safetensors", parts)

        def data_of(tensor: Tensor, parts: dict[str, Part] = parts) -> Iterable[memoryview]:
            return _chunks(parts[tensor.name].tensor)

        digests = write_checkpoint(folder, [shard], None, data_of)
        marks[shard.file_name] = {"size": shard.size_bytes, "sha256": digests[shard.file_name]}
    return marks


def _plan(file_name: str, parts: dict[str, Part]) -> Shard:
    rows = json.dumps({name: [part.first, part.total] for name, part in parts.items()})
    tensors = [Tensor(name, DTYPES[part.tensor.dtype], tuple(part.tensor.shape)) for name, part in parts.items()]
    (shard,), _ = split_into_shards(tensors, max_shard_bytes=sys.maxsize, metadata={"format": "pt", "rows": rows})
    return dataclasses.replace(shard, file_name=file_name)


def _chunks(tensor: torch.Tensor) -> Iterator[memoryview]:
    for part in tensor.flatten().split(CHUNK_ELEMENTS):
        yield memoryview(part.to("cpu").view(torch.uint8).numpy())


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return output_dir / CHECKPOINTS / f"step-{step:08d}"


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints that look whole by their files' sizes, oldest first."""
    return [path for path in sorted((output_dir / CHECKPOINTS).glob("step-*")) if is_whole(path)]


def is_whole(path: Path) -> bool:
    """Whether COMPLETE is there and every file in it has its size."""
    try:
        return all((path / name).stat().st_size == mark["size"] for name, mark in read_marks(path).items())
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return False


def read_marks(path: Path) -> dict[str, dict[str, Any]]:
    """What COMPLETE says of every file: its size and SHA-256."""
    marks: dict[str, dict[str, Any]] = json.loads((path / COMPLETE).read_text("utf-8"))
    return marks


def damaged_files(path: Path, rank: int = 0, num_ranks: int = 1) -> list[str]:
    """The files of a checkpoint whose bytes are not those that were written; each rank looks at its share of them."""
    marks = sorted(read_marks(path).items())
    return [name for name, mark in marks[rank::num_ranks] if sha256_file(path / name) != mark["sha256"]]


def newest_intact(output_dir: Path, ranks: Ranks) -> Path | None:
    """The newest checkpoint whose every byte is what was written; those that are not are named and passed over."""
    names: list[str] = [path.name for path in (output_dir / CHECKPOINTS).glob("step-*")]
    names = json.loads(ranks.exchange(json.dumps(names))[0])
    for name in sorted(names, reverse=True):
        path = output_dir / CHECKPOINTS / name
        damage = ""
        if not is_whole(path):
            damage = "it is not whole"
        elif files := _unreadable_or_damaged(path, ranks):
            damage = f"{files[0]} has not the bytes that were written"
        damage = next((said for said in ranks.exchange(damage) if said), "")
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
    """Restore this rank's rows of model and optimizer, and its random state.

    Returns:
        The number of steps done, which is also the place in the data.

    Raises:
        VicunaError: the checkpoint is damaged or of another model.
    """
    try:
        weights = {name: weight for name, weight in model.named_weights().items() if weight.requires_grad}
        with _SavedParts(path, MODEL) as saved:
            if weights.keys() != saved.totals.keys():
                name = min(weights.keys() ^ saved.totals.keys())
                raise VicunaError(
                    f"{path} is of another model: {name} is in one of them only; choose another directory"
                )
            for name, weight in weights.items():
                saved.read_into(name, weight)
        with _SavedParts(path, OPTIMIZER) as saved:
            for key in saved.totals:
                kind, _, name = key.partition("/")
                weight = weights[name]
                optimizer.state[weight][kind] = saved.read_like(key, weight)
        _restore_rng(path, rank)
        return int(read_json(path / STATE)["step"])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise VicunaError(f"{path} is damaged ({error}); delete it to go on from the one before it") from None


class _SavedParts:
    """The tensors of one kind in a checkpoint, whichever ranks wrote them. Use as a context manager."""

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

    def __enter__(self) -> "_SavedParts":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read_like(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A tensor that is cut like `weight` if it has as many rows, else whole."""
        saved = self._parts[name][0][1].tensors[name]
        is_cut = len(saved.shape) > 0 and self.totals[name] == weight.shape[0]
        shape = (len(local(weight)), *saved.shape[1:]) if is_cut else saved.shape
        value = torch.empty(shape, dtype=TORCH_DTYPES[saved.dtype], device=weight.device)
        value = rows_like(value, weight) if is_cut else value
        self.read_into(name, value)
        return value

    @torch.no_grad()
    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Fill this rank's rows of `target`.

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
    """The random state that this rank had; a rank that was not there goes on with its own."""
    for file in path.glob(f"{RNG}-{rank}-of-*.safetensors"):
        with CheckpointReader(file) as reader:
            states = {
                name: torch.frombuffer(bytearray(reader.read(name)), dtype=torch.uint8) for name in reader.tensors
            }
        torch.set_rng_state(states["cpu"])
        if torch.cuda.is_available() and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])
