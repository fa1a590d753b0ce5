"""The plan of a run: memory of each GPU, tokens, hours and dollars, with the arithmetic.

`python -m vicuna.train --plan` prints it, for hardware, weights and data that need not be here.

Before: `fit` (memory), `workload` (tokens), `speed` (hours), `hardware` (prices). After: a person.
"""

import dataclasses
from dataclasses import dataclass, replace

import torch
from transformers import PretrainedConfig

from vicuna.conversation import load_tokenizer
from vicuna.io.jsonl import JsonObject
from vicuna.io.machine import total_memory_bytes
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import PackedEpochs
from vicuna.train.model.conversation_model import read_config
from vicuna.train.optim.schedule import make_schedule
from vicuna.train.options import TrainOptions
from vicuna.train.planner.estimate import PARTS
from vicuna.train.planner.fit import Fit, Hardware, MicroBatch, find_fit, refusal
from vicuna.train.planner.hardware import GIB, Gpu, Price, get_gpu, get_shape, gpu_of_device
from vicuna.train.planner.options import PlanOptions
from vicuna.train.planner.speed import ModelSize, Speed, expected_speed, measure_model
from vicuna.train.planner.workload import Workload, assume_workload, count_workload, largest_micro_batch
from vicuna.train.prepare import check_fit, choose_template, has_fast_bf16, shares_prefix, tokenize
from vicuna.train.ranks import choose_device
from vicuna.weights.resolve import resolve_model


@dataclass(frozen=True)
class Plan:
    """Memory, work, time and cost of a run.

    Args:
        is_chosen: the activation checkpointing was chosen by the planner.
        workload: None where nothing is known about the data.
        num_steps: in all epochs; None likewise.
        speed: None where neither a measured speed nor the peak of the GPU is known.
    """

    name: str
    hardware: Hardware
    size: ModelSize
    fit: Fit
    is_chosen: bool
    rows_per_step: int
    row_length: int
    workload: Workload | None
    num_steps: int | None
    flops_per_token: float
    speed: Speed | None
    prices: tuple[Price, ...]

    @property
    def num_tokens(self) -> float | None:
        """Of all epochs."""
        if self.workload is None or self.num_steps is None:
            return None
        return self.workload.num_tokens * self.num_steps / self.workload.steps_per_epoch

    @property
    def hours(self) -> float | None:
        """From the first step to the last."""
        if self.num_tokens is None or self.speed is None:
            return None
        return self.num_tokens / (self.speed.tokens_per_second * self.hardware.number) / 3600

    def to_dict(self) -> JsonObject:
        """All figures as plain JSON values: bytes, tokens, hours, dollars."""
        hours, fit = self.hours, self.fit
        return {
            "model": self.name,
            "num_weights": self.size.num_weights,
            "num_trained": self.size.num_trained,
            "gpu": self.hardware.gpu.name,
            "num_gpus": self.hardware.number,
            "memory": {**fit.memory.parts, "reserve": fit.reserve_bytes},
            "peak_bytes": fit.memory.peak_bytes,
            "needed_bytes": fit.needed_bytes,
            "available_bytes": fit.available_bytes,
            "host_bytes": fit.memory.host_bytes,
            "activation_checkpointing": fit.checkpointing,
            "workload": None if self.workload is None else _without_lengths(self.workload),
            "rows_per_step": self.rows_per_step,
            "num_steps": self.num_steps,
            "num_tokens": self.num_tokens and round(self.num_tokens),
            "flops_per_token": self.flops_per_token,
            "tokens_per_second_per_gpu": self.speed and self.speed.tokens_per_second,
            "share_of_peak": self.speed and self.speed.share,
            "speed_source": self.speed and self.speed.reason,
            "hours": hours,
            "gpu_hours": hours and hours * self.hardware.number,
            "dollars": [
                {**dataclasses.asdict(price), "total": hours * self.hardware.number * price.dollars}
                for price in self.prices
                if hours
            ],
        }

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self._memory(), self._work(), self._time(), self._money()) if part)

    def _memory(self) -> str:
        fit, trained = self.fit, self.size.num_trained / self.size.num_weights
        kept = "all trained" if trained == 1 else f"{trained:.2%} trained"
        lines = [f"{self.name} ({self.size.num_weights / 1e9:.3g} billion weights, {kept}) on {self.hardware}", ""]
        lines.append("memory of each, GiB, at the worst moment of a step")
        lines += [f"  {part:<14}{fit.memory.parts[part] / GIB:8.2f}" for part in PARTS]
        lines.append(f"  {'reserve':<14}{fit.reserve_bytes / GIB:8.2f}  outside torch's tensors, and between them")
        lines.append(f"  {'in all':<14}{fit.needed_bytes / GIB:8.2f}  of {fit.available_bytes / GIB:.1f}")
        if fit.memory.host_bytes:
            on_host = fit.memory.host_bytes * self.hardware.number / GIB
            lines.append(f"  and {on_host:.1f} GiB of the host's memory for all of them")
        chosen = " (the fastest that fits)" if self.is_chosen else ""
        lines.append(f"  activation checkpointing: {fit.checkpointing}{chosen}")
        return "\n".join(lines)

    def _work(self) -> str:
        work = self.workload
        if work is None or self.num_steps is None:
            return "tokens, hours and dollars: give --data, or --num-conversations and --num-tokens"
        return (
            f"work, {work.source}\n"
            f"  an epoch: {work.num_conversations:,} conversations, {work.num_tokens:,} tokens, "
            f"{work.num_supervised_in_all / work.num_tokens:.0%} of them in replies\n"
            f"  packed into {work.num_rows:,} rows of {self.row_length:,}, {work.fill:.1%} full\n"
            f"  {self.rows_per_step} rows a step: {work.steps_per_epoch:,} steps an epoch, {self.num_steps:,} in all, "
            f"{self.num_tokens or 0:,.0f} tokens"
        )

    def _time(self) -> str:
        if self.workload is None:
            return ""
        if self.speed is None or self.hours is None:
            return f"hours and dollars: the speed of {self.hardware.gpu.name} is not known; give --tokens-per-second"
        speed, number, peak = self.speed, self.hardware.number, self.hardware.gpu.peak_flops
        lines = ["time"]
        if speed.share and peak:
            lines.append(
                f"  {peak / 1e12:,.0f} TFLOP/s x {speed.share:.1%} / {self.flops_per_token / 1e9:.2f} GFLOP a token = "
                f"{speed.tokens_per_second:,.0f} tokens/s on each"
            )
        lines.append(f"  ({speed.reason})")
        lines.append(
            f"  {self.num_tokens:,.0f} tokens / ({speed.tokens_per_second:,.0f} tokens/s x {number}) = "
            f"{self.hours:.2f} hours, {self.hours * number:.1f} GPU hours"
        )
        return "\n".join(lines)

    def _money(self) -> str:
        if self.hours is None:
            return ""
        gpu_hours = self.hours * self.hardware.number
        if not self.prices:
            return f"dollars: no price of {self.hardware.gpu.name} is known; give --price-per-gpu-hour"
        lines = [
            f"  {gpu_hours:.1f} GPU hours x ${price.dollars:.2f} = ${gpu_hours * price.dollars:,.0f}"
            f"  {price.kind}, {price.source}"
            for price in self.prices
        ]
        return "\n".join(["dollars", *lines])


def make_plan(options: PlanOptions) -> Plan:
    """Plan a run.

    Raises:
        VicunaError: it does not fit (the message says what would), or an option cannot be used.
    """
    name = options.model_name
    if options.model is None:
        config = get_shape(name)
    else:
        options = replace(options, model=resolve_model(options.model, weights=False).folder)
        config = read_config(options.model)  # type: ignore[arg-type]
    hardware = choose_hardware(options)
    rows_per_step = options.rows_per_step or options.rows_per_rank * hardware.number
    workload = _workload(options, config, rows_per_step, hardware.device_type)
    micro_batch = micro_batch_of(options, hardware, rows_per_step, workload)
    fit = find_fit(config, options, hardware, micro_batch)
    if not fit.is_possible:
        raise refusal(name, config, options, hardware, micro_batch, fit)
    size = measure_model(config, options)
    flops_per_token = _flops_per_token(size, options, workload)
    if options.tokens_per_second:
        share = hardware.gpu.peak_flops and options.tokens_per_second * flops_per_token / hardware.gpu.peak_flops
        speed: Speed | None = Speed(options.tokens_per_second, "stated with --tokens-per-second", share)
    else:
        speed = None if options.cpu_offload else expected_speed(hardware.gpu, size, flops_per_token, fit.checkpointing)
    prices = hardware.gpu.prices
    if options.price_per_gpu_hour is not None:
        prices = (Price(options.price_per_gpu_hour, "stated", "--price-per-gpu-hour"),)
    return Plan(
        name,
        hardware,
        size,
        fit,
        options.activation_checkpointing == "auto",
        rows_per_step,
        options.tokens_per_row,
        workload,
        None if workload is None else make_schedule(options, workload.steps_per_epoch).num_steps,
        flops_per_token,
        speed,
        prices,
    )


def choose_hardware(options: PlanOptions) -> Hardware:
    """The GPUs stated, or those of this machine, or its CPU."""
    if stated := options.split_gpu():
        return Hardware(get_gpu(stated[0]), stated[1])
    return hardware_here(choose_device(options.device), max(1, torch.cuda.device_count()))


def hardware_here(device: torch.device, number: int, local_number: int | None = None) -> Hardware:
    """`number` devices like this one, `local_number` of them in this machine; ranks on a CPU share its memory."""
    gpu = gpu_of_device(device)
    if gpu is not None:
        return Hardware(gpu, number)
    return Hardware(Gpu("CPU", total_memory_bytes() // (local_number or number)), number, "cpu")


def micro_batch_of(
    options: TrainOptions, hardware: Hardware, rows_per_step: int, workload: Workload | None
) -> MicroBatch:
    """The largest micro-batch of one device: counted on the data, or as large as the options allow."""
    rows = options.per_device_train_batch_size
    is_accumulated = rows_per_step > rows * hardware.number
    bf16 = options.bf16
    if bf16 is None:
        bf16 = hardware.device_type == "cuda" or has_fast_bf16(torch.device("cpu"))
    if workload is not None and workload.source == "counted":
        return MicroBatch(workload.lengths, workload.num_supervised, is_accumulated, bf16, workload.shared)
    lengths = largest_micro_batch(options.max_length, options.tokens_per_row, rows)
    return MicroBatch(lengths, sum(lengths), is_accumulated, bf16)


def _workload(options: PlanOptions, config: PretrainedConfig, rows_per_step: int, device_type: str) -> Workload | None:
    rows = options.per_device_train_batch_size
    if options.data and options.model:
        template, tokenizer = choose_template(options), load_tokenizer(options.model)
        tokens = tokenize(options, options.data, template, tokenizer)
        check_fit(tokens, config, options)
        epochs = PackedEpochs(
            tokens.lengths, options.tokens_per_row, rows_per_step, seed=options.seed, packing=options.packing
        )
        share_prefix = shares_prefix(options, device_type)
        return count_workload(ConversationDataset(tokens, torch.device("cpu"), share_prefix=share_prefix), epochs, rows)
    if options.num_conversations is None or options.num_tokens is None:
        return None
    return assume_workload(
        options.num_conversations,
        options.num_tokens,
        options.supervised_share,
        max_length=options.max_length,
        row_length=options.tokens_per_row,
        rows_per_step=rows_per_step,
        rows_per_batch=rows,
        seed=options.seed,
    )


def _flops_per_token(size: ModelSize, options: PlanOptions, workload: Workload | None) -> float:
    if workload is None:
        lengths = largest_micro_batch(options.max_length, options.tokens_per_row, 1)
        return size.flops.of_documents(lengths, round(sum(lengths) * options.supervised_share)) / sum(lengths)
    flops = size.flops.of(workload.num_computed, workload.num_supervised_in_all, workload.pair_sum)
    return flops / workload.num_tokens


def _without_lengths(workload: Workload) -> JsonObject:
    return {name: value for name, value in dataclasses.asdict(workload).items() if name not in ("lengths", "shared")}
