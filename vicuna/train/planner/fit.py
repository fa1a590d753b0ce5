"""Whether a run fits into the memory of a device, what its layers compute again, and what would fit if it does not.

Before: `estimate` (the tensors of a step), `hardware`. After: `plan`, and `loop` at the start of a run.
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
from vicuna.train.planner.workload import one_micro_batch

KINDS = ("none", "selective", "full")
"""Activation checkpointing, the fastest first."""
CUDA_BYTES = 600 << 20
"""What a process holds on a GPU beside torch's tensors: CUDA's context and the workspace of its libraries."""
NCCL_BYTES = 1 << 30
"""What NCCL holds for its channels to other GPUs."""
HOST_BYTES = 400 << 20
"""What Python with torch holds on a CPU beside tensors."""
FRAGMENTED = 0.03
"""Of the tensors' memory: what the allocator cannot use between them."""
MOST_TIMES = 8
"""As many times the GPUs asked for are tried in search of a number that fits."""


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
    """How a run sits in the memory of one device.

    Args:
        checkpointing: none, selective or full: what was asked for, or the fastest that fits.
        reserve_bytes: held beside the tensors of the step.
    """

    checkpointing: str
    memory: MemoryEstimate
    reserve_bytes: int
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All that a process takes."""
        return self.memory.peak_bytes + self.reserve_bytes

    @property
    def is_possible(self) -> bool:
        """Whether there is room for it."""
        return self.needed_bytes <= self.available_bytes


@dataclass(frozen=True)
class Step:
    """What one device has to do at once.

    Args:
        lengths: tokens of the documents in the largest micro-batch, without those that they share.
        num_supervised: tokens of it that are learned.
        is_accumulated: a step has more than one micro-batch.
        bf16: in bfloat16.
        shared: how many tokens each document shares; by default none.
    """

    lengths: tuple[int, ...]
    num_supervised: int
    is_accumulated: bool
    bf16: bool
    shared: tuple[int, ...] = ()


def find_fit(config: PretrainedConfig, options: TrainOptions, hardware: Hardware, step: Step) -> Fit:
    """How much memory a run takes on this hardware, with the checkpointing stated or the fastest that fits.

    If none fits, the one that comes nearest.
    """
    kinds: tuple[str, ...] = (options.activation_checkpointing,)
    if kinds == ("auto",):
        kinds = ("none", "full") if options.compile else KINDS
    fits = []
    for kind in kinds:
        setting = Setting(
            hardware.number,
            hardware.device_type,
            step.bf16,
            kind,
            step.lengths,
            step.num_supervised,
            step.is_accumulated,
            step.shared,
        )
        memory = estimate_memory(config, options, setting)
        fits.append(Fit(kind, memory, reserve_bytes(hardware, memory.peak_bytes), hardware.gpu.memory_bytes))
        if fits[-1].is_possible or memory.state_bytes > hardware.gpu.memory_bytes:
            return fits[-1]
    return min(fits, key=lambda fit: fit.needed_bytes)


def reserve_bytes(hardware: Hardware, peak_bytes: int) -> int:
    """What is held beside the tensors of a step."""
    if hardware.device_type == "cpu":
        return HOST_BYTES
    return CUDA_BYTES + (NCCL_BYTES if hardware.number > 1 else 0) + round(FRAGMENTED * peak_bytes)


def refusal(
    name: str, config: PretrainedConfig, options: TrainOptions, hardware: Hardware, step: Step, fit: Fit
) -> VicunaError:
    """Why a run cannot start, with what is nearest to it and fits: on these devices, and on more of them."""
    ways = (
        _first_that_fits(config, options, step, [(*way, hardware) for way in _other_settings(options, hardware)]),
        _first_that_fits(config, options, step, list(_more_devices(hardware))),
    )
    found = " or ".join(way for way in ways if way)
    return VicunaError(
        f"{name} does not fit on {hardware}: it takes {fit.needed_bytes / GIB:.1f} GiB of "
        f"{fit.available_bytes / GIB:.1f} on each (--activation-checkpointing {fit.checkpointing}); "
        + (f"what fits: {found}" if found else "take a smaller model")
    )


Way = tuple[dict[str, Any], str, Hardware]
"""Options to change, how that is said, and the devices."""


def _first_that_fits(config: PretrainedConfig, options: TrainOptions, step: Step, ways: list[Way]) -> str | None:
    for changes, words, hardware in ways:
        changed = replace(options, **changes)
        if changed.per_device_train_batch_size != options.per_device_train_batch_size:
            lengths = one_micro_batch(changed.max_length, changed.tokens_per_row, changed.per_device_train_batch_size)
            step = replace(step, lengths=lengths, num_supervised=sum(lengths), is_accumulated=True)
        try:
            fit = find_fit(config, changed, hardware, step)
        except VicunaError:  # what it needs is not installed here
            continue
        if fit.is_possible:
            return f"{words} ({fit.needed_bytes / GIB:.1f} GiB)"
    return None


def _other_settings(options: TrainOptions, hardware: Hardware) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings for the same devices, each with the ones before it, the least change first."""
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


def _more_devices(hardware: Hardware) -> Iterator[Way]:
    if dist.is_initialized():  # ranks that have met cannot rehearse as another number of them
        return
    times = 2
    while hardware.device_type == "cuda" and times <= MOST_TIMES:
        number = times * hardware.number
        yield {"activation_checkpointing": "auto"}, f"{number} of these GPUs", replace(hardware, number=number)
        times *= 2
