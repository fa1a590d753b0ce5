"""The processes (ranks) of a run: one alone, or several started by `torchrun`.

    torchrun --nproc-per-node 8 -m vicuna.train ...

Every rank runs the same program on its own device. There are three process groups: the default one for weights and
gradients (NCCL on CUDA, gloo on a CPU), one on gloo for short texts between the main threads, and one on gloo for the
threads that write checkpoints in the background (two threads that use one group deadlock).

Before: `__main__`. After: everything that has to know its rank; `parallel` shards the model over the ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from vicuna.errors import UsageError, VicunaError
from vicuna.io import log

CPU = torch.device("cpu")
TIMEOUT = timedelta(hours=12)
"""Of the gloo groups: rank 0 may tokenize a large file while the others wait. A rank that has died is noticed at once,
by its closed connection."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Args:
        rank: of this process, from 0.
        size: the number of ranks.
        local_size: the number of ranks on this machine.
        device: of this rank.
        messages: the group for texts between the main threads; None for a process alone.
        saving: the same, for the threads that write checkpoints.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = CPU
    messages: dist.ProcessGroup | None = None
    saving: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which logs and writes the files that one rank writes."""
        return self.rank == 0

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank, in place; `values` is on the rank's device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, value: bool) -> bool:
        """Whether `value` is true on any rank."""
        return any(self.all_gather("1" if value else ""))

    def all_gather(self, text: str, group: dist.ProcessGroup | None = None) -> list[str]:
        """The text of every rank, in rank order; returns when all ranks have called it."""
        if self.size == 1:
            return [text]
        group = group or self.messages
        own = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8)
        length = torch.tensor([len(text.encode())])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length, group=group)
        longest = max(1, *(int(length) for length in lengths))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(padded, torch.nn.functional.pad(own, (0, longest - len(own))), group=group)
        return [bytes(part[: int(length)].tolist()).decode() for part, length in zip(padded, lengths, strict=True)]

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A block that ends on all ranks if it fails on one: the lowest rank that failed raises its error.

        Raises:
            VicunaError, OSError: the block did, here and on no lower rank.
            SystemExit: another rank failed; with its exit code.
        """
        if self.size == 1:
            yield
            return
        error: VicunaError | OSError | None = None
        try:
            yield
        except (VicunaError, OSError) as caught:
            error = caught
        code = getattr(error, "exit_code", 1) if error else 0
        codes = [int(text) for text in self.all_gather(str(code))]
        failed = [rank for rank, code in enumerate(codes) if code]
        if error and failed[0] == self.rank:
            raise error
        if failed:
            raise SystemExit(codes[failed[0]])


@contextmanager
def join_ranks(device_name: str | None, *, alone_in_group: bool = False) -> Iterator[Ranks]:
    """Join the process group of the ranks that `torchrun` started, if it did; leave it at the end.

    Args:
        device_name: cpu, cuda or cuda:N; None for the best there is.
        alone_in_group: a process alone makes a group of one, which sharding needs.

    Raises:
        UsageError: there is no such device, or not one for each rank.
        VicunaError: the ranks cannot connect, or the connection was lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        device = choose_device(device_name)
        if alone_in_group:
            dist.init_process_group(_backend(device), store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield Ranks(device=device)
        finally:
            if alone_in_group:
                dist.destroy_process_group()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device_of_rank(device_name, local_rank)
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(minutes=10)))
    except (dist.DistError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise VicunaError(f"the ranks cannot meet at {where} ({reason}); start them with torchrun") from error
    # With a fixed port torchrun's store outlives a restart, and still holds the addresses of the ranks before it.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        _backend(device),
        store=dist.PrefixStore(f"vicuna-{attempt}", store),
        rank=rank,
        world_size=size,
        device_id=device if device.type == "cuda" else None,
    )
    if rank:
        log.be_silent()
    try:
        messages, saving = (dist.new_group(backend="gloo", timeout=TIMEOUT) for _ in range(2))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
        yield Ranks(rank, size, local_size, device, messages, saving)
    except RuntimeError as error:
        if not _is_lost_contact(error):
            raise
        raise VicunaError(
            f"rank {rank} has lost the others: one of them ended, and its own message says why; the same command goes "
            "on from the newest checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_lost_contact(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _device_of_rank(name: str | None, local_rank: int) -> torch.device:
    """The GPU with the rank's local number; on a CPU the same device for all."""
    device = choose_device(name)
    if device.type == "cpu":
        return device
    if device.index is not None:
        raise UsageError(f"--device {name}: each of several ranks takes a GPU of its own; use --device cuda")
    num_devices = torch.cuda.device_count()
    if local_rank >= num_devices:
        raise UsageError(f"rank {local_rank} of this machine has no GPU: it has {num_devices}; use that many ranks")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best one here.

    Raises:
        UsageError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is unknown; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name} is not supported; use cpu, cuda or cuda:N")
    num_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_devices:
        raise UsageError(f"--device {name}: this machine has {num_devices} CUDA devices; use cpu or another number")
    return device
