"""How much memory tensors take, counted allocation by allocation, on real tensors or on fake ones.

A `MemoryCounter` sees the result of every operation and writes down when its storage came, how large it is, who asked
for it and when it went. Afterwards the peak is found by reading the list from the beginning, for the whole time and for
each phase of it. On fake tensors (no memory, no arithmetic) the same code tells what a run would take elsewhere.

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
"""Whose code asked for memory: a part of the path of its file, and the name of the part it is counted in."""
MAX_DEPTH = 60


@dataclass
class Peak:
    """The most memory held at a time, and by what.

    Args:
        parts: bytes by the name of the part.
    """

    parts: dict[str, int] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


class MemoryCounter(TorchDispatchMode):
    """Counts the storages that operations make while its block runs.

    Args:
        block_bytes: what the allocator rounds up to (512 on CUDA).
    """

    def __init__(self, *, block_bytes: int = 1) -> None:
        super().__init__()
        self.block_bytes = block_bytes
        self._events: list[tuple[int, int]] = []  # (number of the storage, bytes that came or went)
        self._owners: list[str] = []  # by number of the storage
        self._alive: dict[int, tuple[int, int, Any]] = {}  # by address: number, bytes, weak reference
        self._phases: list[tuple[int, str]] = []  # (events before it, name)
        self._whole_resize = torch.UntypedStorage.resize_

    def __enter__(self) -> Self:
        counter, resize = self, self._whole_resize

        def counted_resize(storage: torch.UntypedStorage, size: int) -> None:  # how FSDP frees and refills a layer
            resize(storage, size)
            if storage._cdata in counter._alive:
                counter._see_storage(storage)

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
                self._see_storage(tensor.untyped_storage())
        return result

    def begin(self, phase: str) -> None:
        """What comes from here on belongs to this phase."""
        self._phases.append((len(self._events), phase))

    def own(self, tensors: Iterator[torch.Tensor], part: str) -> None:
        """Count the storages of these tensors in this part, now and in what is written down already."""
        for tensor in tensors:
            storage = _local(tensor).untyped_storage()
            self._see_storage(storage)
            if entry := self._alive.get(storage._cdata):
                self._owners[entry[0]] = part

    def peaks(self) -> dict[str, Peak]:
        """The peak of each phase, by its name."""
        held: dict[str, int] = {}
        peaks: dict[str, Peak] = {}
        phases = iter([*self._phases, (len(self._events) + 1, "")])
        phase, (begins, following) = "", next(phases)
        for place, (number, change) in enumerate(self._events):
            while place >= begins:
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

    def _see_storage(self, storage: torch.UntypedStorage) -> None:
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
        yield _local(result)
    elif isinstance(result, list | tuple):
        for item in result:
            yield from _tensors(item)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part; what a sharded tensor's operations do inside is not seen, so none of its bookkeeping counts."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def _owner(frame: FrameType | None) -> str:
    """The part that the code belongs to from which an operation was called."""
    for _ in range(MAX_DEPTH):
        if frame is None:
            break
        for path, part in OWNERS.items():
            if path in frame.f_code.co_filename:
                return part
        frame = frame.f_back
    return OTHER
