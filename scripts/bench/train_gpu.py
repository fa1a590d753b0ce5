"""Training steps on one GPU: how much of it they use, how fast they are, and whether the planner foretold the memory.

Runs on a bare machine: torch (2.11 or newer), transformers (5.17 or newer) and this repository on
PYTHONPATH. No weights, no data: blocks of LLaMA-13B's shape with 4 and 8 layers, from which a line gives 40, and a
whole model of 1.1 billion parameters, on packed rows of 4,096 tokens in documents of ShareGPT's lengths. Beside it
transformers' Trainer on the same batch (or, without accelerate, the step that it would do).

    PYTHONPATH=. python scripts/bench/train_gpu.py --json figures.json          within ten minutes
    PYTHONPATH=. python scripts/bench/train_gpu.py --grid                       every combination, as far as time goes
    PYTHONPATH=. python scripts/bench/train_gpu.py --device cpu --tiny          on a machine without a GPU
"""

import argparse
import copy
import dataclasses
import gc
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch.distributed.device_mesh import init_device_mesh
from train_gpu_figures import fit_lines, line_of, make_ratios
from train_gpu_kinds import COMPILED, GRID, ONE_BY_ONE, Kind
from train_gpu_peers import all_logits, dense_attention
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.batches.dataset import Batch
from vicuna.train.batches.documents import Documents
from vicuna.train.model import attention
from vicuna.train.model.conversation_model import ConversationModel, _finish_modules, build_model
from vicuna.train.model.flops import count_flops
from vicuna.train.model.wrapping import wrap_model
from vicuna.train.optim.optimizer import make_optimizer
from vicuna.train.options import TrainOptions
from vicuna.train.planner.estimate import Setting, estimate_memory
from vicuna.train.planner.hardware import gpu_of_device

LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_key_value_heads": 40}
LLAMA_1B = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4}
TINY = {"hidden_size": 64, "intermediate_size": 172, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYERS_OF_1B = 22
ACCUMULATION, STEPS = 2, 3


def main() -> int:
    """Run what fits into the time, print the table and the line to 40 layers."""
    options = parse_arguments()
    device = torch.device(options.device)
    deadline = time.monotonic() + 60 * options.minutes
    gpu = gpu_of_device(device) if device.type == "cuda" else None
    peak = gpu.peak_flops if gpu else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, rows of {options.row_length}")
    print(f"{'':<10}{'':<34}{'ms/step':>9}{'tokens/s':>10}{'MFU':>8}{'GiB':>7}{'planned':>9}{'loss':>9}")
    rows: list[dict[str, Any]] = []
    for label, config, kind, is_peer in measurements(options):
        if time.monotonic() > deadline:
            print(
                f"{label:<10}{'Trainer' if is_peer else kind!s:<34} not run: the {options.minutes:g} minutes are over"
            )
            continue
        try:
            found = measure_trainer(config, options) if is_peer else measure(config, kind, options)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            print(f"{label:<10}{kind!s:<34} failed: {' '.join(str(error).split())[:100]}")
            found = {"error": str(error)[:500]}
        finally:
            clean_up(device)
        words = "Trainer" if is_peer else str(kind)
        if "seconds" in found:
            found["mfu"] = found["flops"] / found["seconds"] / peak if peak else None
            print(f"{label:<10}{found.pop('name', words):<34}{line_of(found)}", flush=True)
        rows.append({"model": label, "layers": config.num_hidden_layers, "kind": words, **found})
    fits = fit_lines(rows, peak)
    for fit in fits:
        print(fit["words"])
    ratios = make_ratios(rows)
    for key, value in ratios.items():
        print(f"{key:<44}{'not measured' if value is None else f'{value:.2f}'}")
    if options.json:
        figures = {"device": name, "torch": torch.__version__, "rows": rows, "fits": fits}
        options.json.write_text(json.dumps({"ratios": ratios, "figures": figures}, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="models and rows so small that a CPU does them in a minute")
    parser.add_argument("--grid", action="store_true", help="all combinations instead of one change at a time")
    parser.add_argument("--row-length", type=int, help="tokens in a packed row (default: 4096; tiny: 256)")
    parser.add_argument("--minutes", type=float, default=9.0, help="begin nothing after that time (default: 9)")
    parser.add_argument("--no-compiled", action="store_true", help="leave the compiled kinds out")
    parser.add_argument("--no-trainer", action="store_true", help="leave transformers' Trainer out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    options.row_length = options.row_length or (256 if options.tiny else 4096)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device; use --device cpu --tiny")
    return options


def measurements(options: argparse.Namespace) -> Iterator[tuple[str, LlamaConfig, Kind, bool]]:
    """What is measured, the most telling first: name, shape, kind, and whether it is the peer."""
    wide, small = (TINY, TINY) if options.tiny else (LLAMA_13B, LLAMA_1B)
    few, more, whole = (2, 3, 2) if options.tiny else (4, 8, LAYERS_OF_1B)

    def config(shape: dict[str, int], layers: int) -> LlamaConfig:
        vocabulary = 512 if options.tiny else 32000
        return LlamaConfig(
            vocab_size=vocabulary, num_hidden_layers=layers, max_position_embeddings=options.row_length, **shape
        )

    kinds = [kind for kind in (GRID if options.grid else ONE_BY_ONE) if not (kind.compiled and options.no_compiled)]
    first = [kind for kind in kinds if kind in (Kind(), COMPILED)]
    rest = [kind for kind in kinds if kind not in first]
    for layers in (few, more):
        for kind in first:
            yield f"13B x{layers}", config(wide, layers), kind, False
        if not options.no_trainer:
            yield f"13B x{layers}", config(wide, layers), Kind(), True
    for kind in first:
        yield "1B", config(small, whole), kind, False
    if not options.no_trainer:
        yield "1B", config(small, whole), Kind(), True
    for kind in rest:
        for layers in (few, more):
            yield f"13B x{layers}", config(wide, layers), kind, False
        yield "1B", config(small, whole), kind, False


def make_batch(row_length: int, vocabulary: int, device: torch.device) -> Batch:
    """A full row of documents with lengths like ShareGPT's, three quarters of their tokens supervised."""
    draw = random.Random(0)
    lengths: list[int] = []
    while sum(lengths) < row_length:
        length = max(8, round(draw.lognormvariate(6.6, 0.6) * row_length / 4096))
        lengths.append(min(length, row_length // 2, row_length - sum(lengths)))
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, vocabulary, (1, row_length), generator=generator)
    labels = input_ids[0].roll(-1)
    labels[torch.rand(row_length, generator=generator) > 0.74] = IGNORE_INDEX
    ends = torch.tensor(lengths).cumsum(0) - 1
    labels[ends] = IGNORE_INDEX
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    documents = Documents.of(tuple(lengths), device)
    num_supervised = int((labels != IGNORE_INDEX).sum())
    return Batch(input_ids.to(device), positions.to(device), labels.to(device), documents, num_supervised, ())


def measure(config: LlamaConfig, kind: Kind, options: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of our step."""
    device = torch.device(options.device)
    batch = make_batch(options.row_length, config.vocab_size, device)
    run = TrainOptions(
        model=Path("."),
        data=(),
        output_dir=Path("."),
        max_length=options.row_length,
        compile=kind.compiled,
        activation_checkpointing=kind.checkpointing,
        gradient_accumulation_steps=ACCUMULATION,
        fsdp="on" if kind.sharded else "auto",
    )
    bf16 = device.type == "cuda"
    with group_of_one(device) if kind.sharded else nullcontext():
        mesh = init_device_mesh(device.type, (1,)) if kind.sharded else None
        model = build_model(config)
        wrap_model(model, run, checkpointing=kind.checkpointing, mesh=mesh, bf16=bf16)
        model.to_empty(device=device)
        _finish_modules(model.causal_lm, device)
        fill(model)
        if kind.attention == "dense":
            AttentionInterface.register(attention.NAME, dense_attention)
        forward = all_logits if kind.loss == "logits" else ConversationModel.__call__
        optimizer = make_optimizer(model, run)

        def micro_step() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and not kind.sharded):
                loss: torch.Tensor = forward(model, batch)
            (loss / (ACCUMULATION * batch.num_supervised)).backward()
            return loss.detach()

        flops = count_flops(model).of_batch(batch) * ACCUMULATION
        found = timed(micro_step, optimizer, batch, device, flops)
        found["planned_bytes"] = planned_bytes(config, run, kind, batch, device)
    return found


def timed(
    micro_step: Callable[[], torch.Tensor], optimizer: Any, batch: Batch, device: torch.device, flops: int
) -> dict[str, Any]:
    """Seconds of a step of `ACCUMULATION` rows, after one that warms up, and the peak of its memory."""
    seconds, first_loss = [], 0.0
    for step in range(STEPS + 1):
        wait(device)
        if step == 1 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        losses = [micro_step() for _ in range(ACCUMULATION)]
        optimizer.step()
        optimizer.zero_grad()
        wait(device)
        seconds.append(time.perf_counter() - started)
        if step == 0:
            first_loss = float(losses[0]) / batch.num_supervised
    best = sorted(seconds[1:])[STEPS // 2]
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    tokens = ACCUMULATION * batch.input_ids.numel()
    return {
        "seconds": best,
        "tokens_per_second": tokens / best,
        "flops": flops,
        "memory_bytes": memory,
        "first_step_seconds": seconds[0],
        "loss": first_loss,
    }


def planned_bytes(config: LlamaConfig, run: TrainOptions, kind: Kind, batch: Batch, device: torch.device) -> int | None:
    """What the planner says of the same step; it knows our attention and loss only."""
    if kind.attention != "varlen" or kind.loss != "fused" or kind.sharded:
        return None
    setting = Setting(
        num_ranks=1,
        device_type=device.type,
        bf16=device.type == "cuda",
        activation_checkpointing=kind.checkpointing,
        lengths=batch.documents.lengths,
        shared=batch.documents.shared,
        num_supervised=batch.num_supervised,
        is_accumulated=ACCUMULATION > 1,
    )
    return estimate_memory(config, dataclasses.replace(run, compile=False), setting).peak_bytes


def measure_trainer(config: LlamaConfig, options: argparse.Namespace) -> dict[str, Any]:
    """The same batch through transformers' Trainer as its users pack: position ids, no mask, bf16 autocast."""
    device = torch.device(options.device)
    batch = make_batch(options.row_length, config.vocab_size, device)
    with device:
        model = LlamaForCausalLM._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    fill(model)
    model.config.use_cache = False
    shadow = build_model(copy.deepcopy(config))  # for its arithmetic only; it writes its attention into the config
    flops = count_flops(shadow).of_batch(batch) * ACCUMULATION
    labels = batch.labels.roll(1).unsqueeze(0).cpu()
    labels[0, 0] = IGNORE_INDEX
    inputs = {"input_ids": batch.input_ids.cpu(), "position_ids": batch.position_ids.cpu(), "labels": labels}
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        on_device = {name: tensor.to(device) for name, tensor in inputs.items()}

        def micro_step() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss: torch.Tensor = model(**on_device, num_items_in_batch=ACCUMULATION * batch.num_supervised).loss
            loss.backward()
            return loss.detach() * ACCUMULATION * batch.num_supervised

        return {"name": "Trainer's step, by hand", **timed(micro_step, optimizer, batch, device, flops)}
    return run_trainer(model, inputs, batch, device, flops)


def run_trainer(
    model: Any, inputs: dict[str, torch.Tensor], batch: Batch, device: torch.device, flops: int
) -> dict[str, Any]:
    """The Trainer itself; the first step warms up."""
    seconds: list[float] = []

    class Clock(transformers.TrainerCallback):
        started = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait(device)
            if len(seconds) == 1 and device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait(device)
            seconds.append(time.perf_counter() - self.started)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=ACCUMULATION,
            max_steps=STEPS + 1,
            learning_rate=1e-5,
            bf16=device.type == "cuda",
            use_cpu=device.type == "cpu",
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=[0] * (ACCUMULATION * (STEPS + 1)),
            data_collator=lambda _: inputs,
            callbacks=[Clock()],
        )
        trainer.train()
    best = sorted(seconds[1:])[STEPS // 2]
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "seconds": best,
        "tokens_per_second": ACCUMULATION * batch.input_ids.numel() / best,
        "flops": flops,
        "memory_bytes": memory,
        "loss": next(row["loss"] for row in trainer.state.log_history if "loss" in row),
    }


def fill(model: torch.nn.Module) -> None:
    """Random weights, the same ones for every kind."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0) if weight.ndim == 1 else torch.nn.init.normal_(weight, std=0.02)


@contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """The process group that FSDP wants."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clean_up(device: torch.device) -> None:
    """What one kind has left must not be counted with the next."""
    AttentionInterface.register(attention.NAME, attention.varlen_attention)
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
