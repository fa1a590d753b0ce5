"""Whether a run fits into the memory of a device, with which activation checkpointing, and what fits if it does not.

Before: `estimate` (the tensors of a step), `hardware`. After: `report`, and `preflight` at the start of a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from transformers import PretrainedConfig

from vicuna.errors import VicunaError
from vicuna.train.options import TrainOptions
from vicuna.train.planner.estimate import MemoryEstimate, Setting, estimate_memory
from vicuna.train.planner.hardware import GIB, Gpu
from vicuna.train.planner.workload import largest_micro_batch

KINDS = ("none", "selective", "full")
"""Activation checkpointing, the fastest first."""
CUDA_BYTES = 600 << 20
"""Of a process on a GPU beside torch's tensors: CUDA's context and the workspace of its libraries."""
NCCL_BYTES = 1 << 30
"""Of NCCL's channels to other GPUs."""
HOST_BYTES = 400 << 20
"""Of Python with torch on a CPU, beside tensors."""
FRAGMENTED = 0.03
"""The part of the tensors' memory that fragmentation adds."""
MAX_TIMES = 8
"""The largest multiple of the GPUs asked for that is tried in search of a number that fits."""


@dataclass(frozen=True)
class Hardware:
    """Devices to train on, all alike, each with a rank of its own."""

    gpu: Gpu
    number: int = 1
    device_type: str = "cuda"

    def __str__(self) -> str:
        return f"{self.number} x {self.gpu.name}"


@dataclass(frozen=True)
class Fit:
    """The memory of a run on one device.

    Args:
        checkpointing: none, selective or full: as asked for, or the fastest that fits.
        reserve_bytes: beside the tensors of the step.
    """

    checkpointing: str
    memory: MemoryEstimate
    reserve_bytes: int
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Of a process in all."""
        return self.memory.peak_bytes + self.reserve_bytes

    @property
    def is_possible(self) -> bool:
        """Whether the device has as much."""
        return self.needed_bytes <= self.available_bytes


@dataclass(frozen=True)
class MicroBatch:
    """The largest micro-batch of one device.

    Args:
        lengths: tokens of its documents, without those of shared prefixes.
        num_supervised: supervised tokens of it.
        is_accumulated: a step has more than one micro-batch.
        bf16: computed in bfloat16.
        shared: tokens of each document's shared prefix; by default none.
    """

    lengths: tuple[int, ...]
    num_supervised: int
    is_accumulated: bool
    bf16: bool
    shared: tuple[int, ...] = ()


def find_fit(config: PretrainedConfig, options: TrainOptions, hardware: Hardware, micro_batch: MicroBatch) -> Fit:
    """The memory of a run on this hardware, with the activation checkpointing stated or the fastest that fits.

    If none fits, the one that needs least.
    """
    kinds: tuple[str, ...] = (options.activation_checkpointing,)
    if kinds == ("auto",):
        kinds = ("none", "full") if options.compile else KINDS
    fits = []
    for kind in kinds:
        setting = Setting(
            hardware.number,
            hardware.device_type,
            micro_batch.bf16,
            kind,
            micro_batch.lengths,
            micro_batch.num_supervised,
            micro_batch.is_accumulated,
            micro_batch.shared,
        )
        memory = estimate_memory(config, options, setting)
        fits.append(Fit(kind, memory, reserve_bytes(hardware, memory.peak_bytes), hardware.gpu.memory_bytes))
        if fits[-1].is_possible or memory.state_bytes > hardware.gpu.memory_bytes:
            return fits[-1]
    return min(fits, key=lambda fit: fit.needed_bytes)


def reserve_bytes(hardware: Hardware, peak_bytes: int) -> int:
    """The memory beside the tensors of a step."""
    if hardware.device_type == "cpu":
        return HOST_BYTES
    return CUDA_BYTES + (NCCL_BYTES if hardware.number > 1 else 0) + round(FRAGMENTED * peak_bytes)


def refusal(
    name: str, config: PretrainedConfig, options: TrainOptions, hardware: Hardware, micro_batch: MicroBatch, fit: Fit
) -> VicunaError:
    """The error of a run that does not fit, with the smallest changes that make it fit, and more devices that do."""
    here = [(*setting, hardware) for setting in _other_settings(options, hardware)]
    found = " or ".join(
        words
        for alternatives in (here, list(_more_devices(hardware)))
        if (words := _first_that_fits(config, options, micro_batch, alternatives))
    )
    return VicunaError(
        f"{name} does not fit on {hardware}: it takes {fit.needed_bytes / GIB:.1f} GiB of "
        f"{fit.available_bytes / GIB:.1f} on each (--activation-checkpointing {fit.checkpointing}); "
        + (f"what fits: {found}" if found else "take a smaller model")
    )


Alternative = tuple[dict[str, Any], str, Hardware]
"""Options to change, the same in words, and the devices."""


def _first_that_fits(
    config: PretrainedConfig, options: TrainOptions, micro_batch: MicroBatch, alternatives: list[Alternative]
) -> str | None:
    for changes, words, hardware in alternatives:
        changed = replace(options, **changes)
        num_rows = changed.per_device_train_batch_size
        if num_rows != options.per_device_train_batch_size:
            lengths = largest_micro_batch(changed.max_length, changed.tokens_per_row, num_rows)
            micro_batch = replace(micro_batch, lengths=lengths, num_supervised=sum(lengths), is_accumulated=True)
        try:
            fit = find_fit(config, changed, hardware, micro_batch)
        except VicunaError:  # what it needs is not installed here
            continue
        if fit.is_possible:
            return f"{words} ({fit.needed_bytes / GIB:.1f} GiB)"
    return None


def _other_settings(options: TrainOptions, hardware: Hardware) -> Iterator[tuple[dict[str, Any], str]]:
    """Changes of options, and the same in words, the smallest first; each includes those before it."""
    changes: dict[str, Any] = {}
    words = ""
    if options.activation_checkpointing not in ("auto", "full"):
        changes, words = {"activation_checkpointing": "auto"}, "--activation-checkpointing auto "
        yield changes, words.strip()
    if (rows := options.per_device_train_batch_size) > 1:
        changes, words = {**changes, "per_device_train_batch_size": 1}, f"{words}--per-device-train-batch-size 1 "
        if options.rows_per_step is None:
            passes = options.gradient_accumulation_steps * rows
            changes["gradient_accumulation_steps"] = passes
            words += f"--gradient-accumulation-steps {passes} "
        yield changes, words.strip()
    if hardware.device_type == "cuda" and not options.cpu_offload and not options.has_adapter:
        yield {**changes, "cpu_offload": True}, f"{words}--cpu-offload"
    if not options.has_adapter:
        yield {**changes, "cpu_offload": False, "lora": True}, f"{words}--lora"
    if hardware.device_type == "cuda" and hardware.number == 1 and not options.qlora:
        yield {**changes, "cpu_offload": False, "lora": False, "qlora": True}, f"{words}--qlora"


def _more_devices(hardware: Hardware) -> Iterator[Alternative]:
    if dist.is_initialized():  # a process group has been made, and it has another number of ranks
        return
    times = 2
    while hardware.device_type == "cuda" and times <= MAX_TIMES:
        number = times * hardware.number
        yield {"activation_checkpointing": "auto"}, f"{number} of these GPUs", replace(hardware, number=number)
        times *= 2
