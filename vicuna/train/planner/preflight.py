"""The check of a run before it reads a weight: whether it fits, by which activation checkpointing, and its cost.

Where a bound from the model's shape is far below the memory, the estimate on fake tensors is left out.

Before: `prepare`. After: `loop` wraps the model with the checkpointing chosen here.
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from vicuna.io import log
from vicuna.train.model.loss import chunk_tokens
from vicuna.train.options import TrainOptions
from vicuna.train.planner.fit import Fit, Hardware, MicroBatch, find_fit, refusal, reserve_bytes
from vicuna.train.planner.hardware import GIB, Gpu
from vicuna.train.planner.report import hardware_here
from vicuna.train.planner.speed import expected_speed, measure_model
from vicuna.train.planner.workload import Workload, count_workload
from vicuna.train.prepare import Run
from vicuna.train.watch.metrics import Meter

ROOMY = 0.5
"""Of the memory: a bound below this share of it is enough."""


@dataclass(frozen=True)
class Preflight:
    """The outcome of the check.

    Args:
        checkpointing: none, selective or full.
        needed_bytes: on each device; an upper bound if `fit` is None.
    """

    checkpointing: str
    hardware: Hardware
    needed_bytes: int
    fit: Fit | None = None

    def __str__(self) -> str:
        available = f"{self.hardware.gpu.memory_bytes / GIB:.1f} GiB"
        where = f" on each of {self.hardware.number}" if self.hardware.number > 1 else ""
        if self.fit is None:
            return f"memory: at most {log.human_bytes(self.needed_bytes)} of {available}{where}"
        parts = ", ".join(f"{part} {size / GIB:.2f}" for part, size in self.fit.memory.parts.items() if size)
        return (
            f"memory: about {self.needed_bytes / GIB:.1f} of {available}{where} ({parts}, the rest "
            f"{self.fit.reserve_bytes / GIB:.2f}); activation checkpointing: {self.checkpointing}"
        )

    def meter(self, run: Run) -> Meter:
        """The run's devices, for its log."""
        gpu = self.hardware.gpu
        return Meter(run.device, self.hardware.number, gpu.peak_flops, price_of(run.options, gpu))


def price_of(options: TrainOptions, gpu: Gpu) -> float | None:
    """Dollars for an hour of one device: as stated, else the lowest of the table; None without either."""
    if options.price_per_gpu_hour is not None:
        return options.price_per_gpu_hour
    return gpu.prices[0].dollars if gpu.prices else None


def make_preflight(run: Run) -> Preflight:
    """Check a run on the devices that it has.

    Raises:
        VicunaError: it cannot fit; the message says what would.
    """
    config, options, ranks = run.config, run.options, run.ranks
    rows = options.per_device_train_batch_size
    workload = count_workload(run.conversations, run.epochs, rows)
    is_accumulated = run.epochs.rows_per_step > rows * ranks.size
    micro_batch = MicroBatch(workload.lengths, workload.num_supervised, is_accumulated, run.bf16, workload.shared)
    hardware = hardware_here(run.device, ranks.size, ranks.local_size)
    kind = options.activation_checkpointing
    bound = bound_bytes(config, hardware, micro_batch)
    if bound <= ROOMY * hardware.gpu.memory_bytes:
        return Preflight("none" if kind == "auto" else kind, hardware, bound)
    fit = find_fit(config, options, hardware, micro_batch)
    if not fit.is_possible:
        raise refusal(str(options.model), config, options, hardware, micro_batch, fit)
    return Preflight(fit.checkpointing, hardware, fit.needed_bytes, fit)


def log_preflight(run: Run, preflight: Preflight) -> None:
    """Log what the run will take: memory, and where the speed of the device is known hours and dollars."""
    log.info(str(preflight))
    gpu, number = preflight.hardware.gpu, preflight.hardware.number
    if gpu.peak_flops is None or run.options.cpu_offload:  # without a published speed
        return
    workload = count_workload(run.conversations, run.epochs, run.options.per_device_train_batch_size)
    size = measure_model(run.config, run.options)
    flops = size.flops.of(workload.num_computed, workload.num_supervised_in_all, workload.pair_sum)
    speed = expected_speed(gpu, size, flops / workload.num_tokens, preflight.checkpointing)
    assert speed is not None
    hours = _num_tokens(run, workload) / (speed.tokens_per_second * number) / 3600
    price = price_of(run.options, gpu)
    money = "" if price is None else f", ${hours * number * price:,.0f} at ${price:.2f} a GPU hour"
    log.info(
        f"time: about {hours:.1f} hours at {speed.tokens_per_second:,.0f} tokens/s on each of {number} {gpu.name} "
        f"({speed.reason}){money}"
    )


def _num_tokens(run: Run, workload: Workload) -> float:
    return workload.num_tokens * run.num_steps / workload.steps_per_epoch


def bound_bytes(config: PretrainedConfig, hardware: Hardware, micro_batch: MicroBatch) -> int:
    """An upper bound of a run's memory, without checkpointing and in fp32, by the sizes of the model alone."""
    num_tokens, hidden_size, vocab_size = sum(micro_batch.lengths), config.hidden_size, config.vocab_size
    head_dim = getattr(config, "head_dim", None) or hidden_size // config.num_attention_heads
    heads = config.num_attention_heads * head_dim
    layer = hidden_size * (4 * heads + 3 * config.intermediate_size + 4) + 4 * heads
    vocabulary = hidden_size * vocab_size * (1 if config.tie_word_embeddings else 2)
    num_weights = config.num_hidden_layers * layer + vocabulary
    num_ranks = hardware.number
    state = 16 * num_weights // num_ranks  # weights, gradients and two moments in fp32
    whole = 2 * num_weights if num_ranks == 1 else 4 * (4 * layer + 2 * vocabulary)  # casts, or what is gathered
    per_token = 16 * hidden_size + 8 * heads + 8 * config.intermediate_size
    activations = 4 * num_tokens * per_token * (config.num_hidden_layers + 1)
    loss = 12 * vocab_size * min(micro_batch.num_supervised, chunk_tokens(vocab_size)) + 12 * hidden_size * (
        vocab_size + num_tokens
    )
    tensors: int = state + whole + activations + loss
    return tensors + reserve_bytes(hardware, tensors)
