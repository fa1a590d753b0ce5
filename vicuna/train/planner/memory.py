"""The memory of tensors, counted allocation by allocation, on real tensors or on fake ones.

A `MemoryCounter` dispatches every operation and records the storage of its result: its size, the part of the program
that allocated it, and when it was freed. Afterwards the records give the peak of the whole time and of each phase. On
fake tensors (no memory, no arithmetic) it counts what a run would take on other hardware.

Before: any code of torch. After: `estimate`, which runs a training step of fake tensors in it.
"""

import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from vicuna.train.model import loss

OTHER = "activations"
OWNERS = {"/fsdp/": "communication", loss.__file__: "loss"}
"""By a part of the path of the file whose code allocated memory: the part of the peak that it is counted in."""
MAX_DEPTH = 60


@dataclass
class Peak:
    """The most memory allocated at a time.

    Args:
        parts: bytes by part: weights, gradients, activations, ...
    """

    parts: dict[str, int] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


class MemoryCounter(TorchDispatchMode):
    """Counts the storages that operations allocate while its block runs.

    Args:
        block_bytes: the allocator rounds sizes up to multiples of it (512 on CUDA).
    """

    def __init__(self, *, block_bytes: int = 1) -> None:
        super().__init__()
        self.block_bytes = block_bytes
        self._events: list[tuple[int, int]] = []  # (number of the storage, bytes allocated or freed)
        self._owners: list[str] = []  # by number of the storage
        self._alive: dict[int, tuple[int, int, Any]] = {}  # by address: number, bytes, weak reference
        self._phases: list[tuple[int, str]] = []  # (events before it, name)
        self._whole_resize = torch.UntypedStorage.resize_

    def __enter__(self) -> Self:
        counter, resize = self, self._whole_resize

        def counted_resize(storage: torch.UntypedStorage, size: int) -> None:  # how FSDP frees and refills a layer
            resize(storage, size)
            if storage._cdata in counter._alive:
                counter._record(storage)

        torch.UntypedStorage.resize_ = counted_resize
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.UntypedStorage.resize_ = self._whole_resize

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if tensor.device.type != "meta":
                self._record(tensor.untyped_storage())
        return result

    def begin_phase(self, phase: str) -> None:
        """Start a phase: what is allocated from here on is counted in it."""
        self._phases.append((len(self._events), phase))

    def attribute(self, tensors: Iterator[torch.Tensor], part: str) -> None:
        """Count the storages of these tensors in this part, also for the time before this call."""
        for tensor in tensors:
            storage = _local_shard(tensor).untyped_storage()
            self._record(storage)
            if entry := self._alive.get(storage._cdata):
                self._owners[entry[0]] = part

    def peaks(self) -> dict[str, Peak]:
        """The peak of each phase, by its name."""
        held: dict[str, int] = {}
        peaks: dict[str, Peak] = {}
        phases = iter([*self._phases, (len(self._events) + 1, "")])
        phase, (begins, following) = "", next(phases)
        for index, (number, change) in enumerate(self._events):
            while index >= begins:
                phase, (begins, following) = following, next(phases)
                peaks.setdefault(phase, Peak(dict(held)))
            owner = self._owners[number]
            held[owner] = held.get(owner, 0) + change
            if change > 0 and sum(held.values()) > peaks.setdefault(phase, Peak()).num_bytes:
                peaks[phase] = Peak(dict(held))
        return peaks

    def peak(self) -> Peak:
        """The peak of the whole time."""
        return max(self.peaks().values(), key=lambda peak: peak.num_bytes, default=Peak())

    def _record(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, -(-storage.nbytes() // self.block_bytes) * self.block_bytes
        entry = self._alive.get(address)
        if entry is None:
            number = len(self._owners)
            self._owners.append(_owner(sys._getframe(1)))
            reference = weakref.ref(storage, lambda _: self._forget(address))
            before = 0
        else:
            number, before, reference = entry
            if size > before:
                self._owners[number] = _owner(sys._getframe(1))
        self._alive[address] = (number, size, reference)
        if size != before:
            self._events.append((number, size - before))

    def _forget(self, address: int) -> None:
        number, size, _ = self._alive.pop(address)
        if size:
            self._events.append((number, -size))


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield _local_shard(result)
    elif isinstance(result, list | tuple):
        for item in result:
            yield from _tensors(item)


def _local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard, without dispatching an operation of the sharded tensor, which would be counted."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def _owner(frame: FrameType | None) -> str:
    """The part of the peak that an allocation from this frame is counted in."""
    for _ in range(MAX_DEPTH):
        if frame is None:
            break
        for path, part in OWNERS.items():
            if path in frame.f_code.co_filename:
                return part
        frame = frame.f_back
    return OTHER
