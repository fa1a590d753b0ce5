"""The processes of a run and how they agree: one process alone, or many started by `torchrun`.

    torchrun --nproc-per-node 8 -m vicuna.train ...

Every rank runs the same program on its own device. They speak in three channels: gradients and weights over the
device's own backend (NCCL on CUDA, gloo on a CPU), short messages between the main threads over gloo, and the messages
of a checkpoint that is being written in the background over a gloo group of its own (two threads on one group wait for
each other for ever).

Before: `__main__`. After: everything that has to know which rank it is; `parallel` shards the model over the ranks.
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
PATIENCE = timedelta(hours=12)
"""How long a rank waits for another one's message: rank 0 may tokenize a large file first. A rank that has died is
noticed at once, by its closed connection."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Args:
        rank: its number, from 0.
        size: how many there are.
        local_size: how many of them run on this machine.
        device: where this one computes.
        messages: the group for short messages between the main threads; None for a process alone.
        saving: the same, for the thread that writes checkpoints.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = CPU
    messages: dist.ProcessGroup | None = None
    saving: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that logs and writes what is written once."""
        return self.rank == 0

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank; `values` lies on the run's device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, is_so: bool) -> bool:
        """Whether it is so on any rank."""
        return any(self.exchange("1" if is_so else ""))

    def exchange(self, text: str, group: dist.ProcessGroup | None = None) -> list[str]:
        """What every rank says, in the order of their numbers; returns when all have spoken."""
        if self.size == 1:
            return [text]
        group = group or self.messages
        said = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8)
        length = torch.tensor([len(text.encode())])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length, group=group)
        longest = max(1, *(int(length) for length in lengths))
        heard = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(heard, torch.nn.functional.pad(said, (0, longest - len(said))), group=group)
        return [bytes(part[: int(length)].tolist()).decode() for part, length in zip(heard, lengths, strict=True)]

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What fails in the block on one rank ends all of them: the first that failed says why, the others are silent.

        Raises:
            VicunaError, OSError: the block did, here and on no lower rank.
            SystemExit: another rank failed.
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
        codes = [int(said) for said in self.exchange(str(code))]
        failed = [rank for rank, code in enumerate(codes) if code]
        if error and failed[0] == self.rank:
            raise error
        if failed:
            raise SystemExit(codes[failed[0]])


@contextmanager
def join_ranks(device_name: str | None, *, alone_in_group: bool = False) -> Iterator[Ranks]:
    """Meet the other ranks that `torchrun` started, if it did; leave them at the end.

    Args:
        device_name: cpu, cuda or cuda:N; None for the best there is.
        alone_in_group: a process alone makes a group of one, which sharding needs.

    Raises:
        UsageError: there is no such device, or not one for each rank.
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
    # With a fixed port, torchrun's store outlives a restart, and with it the addresses of ranks that are no more.
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
        messages, saving = (dist.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2))
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
    """Each rank of a machine has a GPU of its own, or all share the CPU."""
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
