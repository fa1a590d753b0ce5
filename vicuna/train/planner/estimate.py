"""The peak memory of a training step on any hardware: the step itself, run on fake tensors.

The real model, sharding, checkpointing, loss and optimizer run under torch's `FakeTensorMode` (shapes without numbers)
and a fake process group of as many ranks as asked for, inside a `MemoryCounter`. A model is a stack of equal layers, so
the peaks of each phase of a step with two small numbers of layers give a straight line in that number; the largest of
these at the real number is the peak. 13B parameters on 8 ranks take seconds on a laptop.

Not counted: CUDA's memory outside torch's tensors (`fit.reserve_bytes`), and that a compiled layer keeps less.

Before: a model's config and options. After: `fit` compares it with a GPU.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from transformers import PretrainedConfig

from vicuna.train.batches.dataset import Batch
from vicuna.train.batches.documents import Documents
from vicuna.train.model import attention
from vicuna.train.model.conversation_model import ConversationModel, build_model
from vicuna.train.model.lora import saved_by_4bit
from vicuna.train.model.wrapping import wrap_model
from vicuna.train.optim.optimizer import make_optimizer
from vicuna.train.options import TrainOptions
from vicuna.train.planner.memory import MemoryCounter, Peak

GIB = 1 << 30
MEASURED_LAYERS = (4, 6)
"""The numbers of layers that are measured: the first and last two layers are special, those between are alike."""
CUDA_BLOCK_BYTES = 512
FAKE_MESH_DIM_NAMES = ("rehearsal",)
"""Of the fake ranks' mesh. Without it that mesh would be equal to the real ranks', and torch, which caches meshes by
equality, would take the one for the other."""
PARTS = ("weights", "gradients", "optimizer", "activations", "communication", "loss")
HOST_PARTS = ("weights", "gradients", "optimizer")
"""The parts that --cpu-offload keeps in the host's memory."""


@dataclass(frozen=True)
class Setting:
    """The machine and the step whose memory is estimated.

    Args:
        num_ranks: processes, each with a device of its own.
        device_type: cuda or cpu.
        bf16: compute in bfloat16.
        activation_checkpointing: none, selective or full.
        lengths: tokens of the documents in the largest micro-batch, without those of shared prefixes.
        num_supervised: supervised tokens of it.
        is_accumulated: a step has more than one micro-batch.
        shared: tokens of each document's shared prefix; by default none.
    """

    num_ranks: int
    device_type: str
    bf16: bool
    activation_checkpointing: str
    lengths: tuple[int, ...]
    num_supervised: int
    is_accumulated: bool = False
    shared: tuple[int, ...] = ()


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak of one rank.

    Args:
        parts: bytes of each of `PARTS` at the peak.
        phase: of the step that has the peak.
        state_bytes: at the end of the step: weights, gradients and optimizer, which checkpointing does not reduce.
        host_bytes: in the host's memory instead, per rank (with --cpu-offload).
    """

    parts: dict[str, int]
    phase: str
    state_bytes: int = 0
    host_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """Of the step's tensors: comparable with `torch.cuda.max_memory_allocated`."""
        return sum(self.parts.values())


def estimate_memory(config: PretrainedConfig, options: TrainOptions, setting: Setting) -> MemoryEstimate:
    """The peak memory of one rank in a step, by running it on fake tensors.

    Args:
        config: the model's; no weights are needed.
        options: of the run; `setting` takes precedence.
    """
    num_layers = config.num_hidden_layers
    if num_layers <= max(MEASURED_LAYERS):
        peaks = _measure_peaks(config, options, setting, num_layers)
    else:
        few, more = (_measure_peaks(config, options, setting, number) for number in MEASURED_LAYERS)
        peaks = _extrapolate(few, more, num_layers)
    if options.qlora:
        for peak in peaks.values():
            peak.parts["weights"] -= saved_by_4bit(config, bf16=setting.bf16)
    return _largest(peaks, options, num_layers)


def _extrapolate(few: dict[str, Peak], more: dict[str, Peak], num_layers: int) -> dict[str, Peak]:
    low, high = MEASURED_LAYERS
    peaks = {}
    for phase, peak in few.items():
        parts = {}
        for part in peak.parts.keys() | more[phase].parts.keys():
            first, second = peak.parts.get(part, 0), more[phase].parts.get(part, 0)
            parts[part] = first + (second - first) * (num_layers - low) // (high - low)
        peaks[phase] = Peak(parts)
    return peaks


def _largest(peaks: dict[str, Peak], options: TrainOptions, num_layers: int) -> MemoryEstimate:
    host_bytes = 0
    if options.cpu_offload:
        on_host = {phase: {part: peak.parts.pop(part, 0) for part in HOST_PARTS} for phase, peak in peaks.items()}
        host_bytes = max(sum(parts.values()) for parts in on_host.values())
        for phase, peak in peaks.items():  # the shards of one layer at a time are on the device
            peak.parts["communication"] = peak.parts.get("communication", 0) + on_host[phase]["weights"] // num_layers
    phase, peak = max(peaks.items(), key=lambda item: item[1].num_bytes)
    state_bytes = peaks["optimizer"].num_bytes
    return MemoryEstimate({part: peak.parts.get(part, 0) for part in PARTS}, phase, state_bytes, host_bytes)


def _measure_peaks(
    config: PretrainedConfig, options: TrainOptions, setting: Setting, num_layers: int
) -> dict[str, Peak]:
    """The peak of each phase of a step, for a model with this number of layers."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = num_layers
    with ExitStack() as stack:
        is_sharded = options.fsdp == "on" or options.cpu_offload or setting.num_ranks > 1
        mesh = stack.enter_context(_fake_ranks(setting.num_ranks)) if is_sharded else None
        if setting.device_type == "cuda":
            stack.enter_context(_cuda_attention())
        model = build_model(config)
        # Fake tensors are all on one device: offload is taken into account afterwards (`_largest`). There are no fake
        # 4-bit weights either: they are counted as the 16 or 32 bits that they replace, and the difference subtracted.
        on_device = replace(options, cpu_offload=False, compile=False, lora=options.has_adapter, qlora=False)
        wrap_model(model, on_device, checkpointing=setting.activation_checkpointing, mesh=mesh, bf16=setting.bf16)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        block_bytes = CUDA_BLOCK_BYTES if setting.device_type == "cuda" else 1
        counter = stack.enter_context(_StepCounter(setting.num_supervised, block_bytes=block_bytes))
        model.to_empty(device="cpu")
        if config.tie_word_embeddings:
            model.causal_lm.lm_head.weight = model.causal_lm.model.embed_tokens.weight
        counter.attribute(model.parameters(), "weights")
        counter.attribute(model.buffers(), "weights")
        optimizer = _make_optimizer(model, options)
        counter.attribute(_state(optimizer), "optimizer")
        _mark_phases(model, counter)
        for _ in range(2 if setting.is_accumulated else 1):
            _forward_backward(model, setting, counter)
        counter.begin_phase("optimizer")
        optimizer.step()
        del model, optimizer
        return {phase: peak for phase, peak in counter.peaks().items() if phase}  # without the building of the model


class _StepCounter(MemoryCounter):
    """Gives `nonzero`, whose shape depends on data that fake tensors do not have, the number of supervised tokens."""

    def __init__(self, num_supervised: int, *, block_bytes: int) -> None:
        super().__init__(block_bytes=block_bytes)
        self.num_supervised = num_supervised

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            func, args = torch.ops.aten.zeros.default, ([self.num_supervised, 1],)
            kwargs = {"dtype": torch.int64, "device": torch.device("cpu")}
        return super().__torch_dispatch__(func, types, args, kwargs)


@contextmanager
def _fake_ranks(size: int) -> Iterator[DeviceMesh]:
    """A mesh of `size` ranks, of which this process is the first; nothing is sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():  # the ranks of a run that is about to start
        assert dist.get_world_size() == size
        group = dist.new_group(backend="fake")
        yield DeviceMesh.from_group(group, "cpu", mesh_dim_names=FAKE_MESH_DIM_NAMES)
        dist.destroy_process_group(group)
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield init_device_mesh("cpu", (size,), mesh_dim_names=FAKE_MESH_DIM_NAMES)
    finally:
        dist.destroy_process_group()


@contextmanager
def _cuda_attention() -> Iterator[None]:
    """Let attention use CUDA's kernels for fake tensors, whose device is the CPU."""
    with (
        patch.object(attention, "has_flash", lambda _, dtype: dtype in attention.FLASH_DTYPES),
        patch.object(attention, "can_skip_queries", lambda *_: False),
    ):
        yield


def _make_optimizer(model: ConversationModel, options: TrainOptions) -> torch.optim.Optimizer:
    """An optimizer that has stepped once, and has its state."""
    optimizer = make_optimizer(model, options)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _state(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _mark_phases(model: ConversationModel, counter: MemoryCounter) -> None:
    """Begin a phase where the loss begins and where the backward pass reaches one of the outer layers."""
    decoder = model.causal_lm.model
    decoder.register_forward_hook(lambda *_: counter.begin_phase("loss"))
    count = len(decoder.layers)
    for number, layer in enumerate(decoder.layers):
        phase = f"backward from the end {count - number}" if number >= count // 2 else f"backward {number + 1}"
        layer.register_forward_hook(_phase_at_gradient(counter, phase))


def _phase_at_gradient(counter: MemoryCounter, phase: str) -> Any:
    def hook(_module: Any, _args: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda _: counter.begin_phase(phase))

    return hook


def _forward_backward(model: ConversationModel, setting: Setting, counter: MemoryCounter) -> None:
    """A forward and a backward pass over the largest micro-batch."""
    num_tokens = sum(setting.lengths)
    counter.begin_phase("forward")
    token = torch.zeros(num_tokens, dtype=torch.int64)
    documents = Documents.of(setting.lengths, shared=setting.shared)
    batch = Batch(token[None], token[None], token, documents, setting.num_supervised, ())
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16 and not isinstance(model, FSDPModule)):
        loss = model(batch)
    (loss / setting.num_supervised).backward()
    counter.attribute((weight.grad for weight in model.parameters() if weight.grad is not None), "gradients")
