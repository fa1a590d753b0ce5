"""All that a run needs before its first step, checked before any weight is read.

Before: `options`. After: `loop`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from vicuna.conversation import Template, get_template, load_template, load_tokenizer
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import UsageError, VicunaError
from vicuna.io import log
from vicuna.io.jsonl import JsonObject
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import PackedEpochs, Row, pack
from vicuna.train.batches.token_cache import TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.allocator import keep_freed_memory
from vicuna.train.model.conversation_model import model_fingerprint, read_config
from vicuna.train.optim.schedule import CosineSchedule, make_schedule
from vicuna.train.options import DEFAULT_TEMPLATE, TrainOptions
from vicuna.train.ranks import Ranks
from vicuna.train.save.export import read_generation_config
from vicuna.train.save.output import earlier_rows_per_step, run_identity
from vicuna.train.watch.generations import Prompt, read_prompts
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.resolve import resolve_model


@dataclass(frozen=True)
class Run:
    """One training run: model, data, their order, and the schedule.

    Args:
        config: the model's `config.json`.
        ranks: this process among the others.
        is_sharded: the model is sharded over the ranks (`parallel`).
        bf16: compute in bfloat16.
        held_out: the conversations of `--eval-data`, or None.
        held_out_rows: the rows of these.
        prompts: of the generations at every evaluation.
        epochs: the rows of every step.
        identity: tells this run from others (see `output.run_identity`).
    """

    options: TrainOptions
    config: PretrainedConfig
    ranks: Ranks
    is_sharded: bool
    bf16: bool
    tokenizer: Tokenizer
    template: Template
    conversations: ConversationDataset
    held_out: ConversationDataset | None
    held_out_rows: list[Row]
    prompts: list[Prompt]
    epochs: PackedEpochs
    schedule: CosineSchedule
    identity: JsonObject

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self.ranks.device

    @property
    def num_steps(self) -> int:
        """Optimizer steps from the first to the last."""
        return self.schedule.num_steps


def prepare(options: TrainOptions, ranks: Ranks) -> Run:
    """Read config, tokenizer and data, pack the rows, and lay down the schedule.

    Raises:
        VicunaError: one of them cannot be used.
    """
    options = replace(options, model=resolve_model(options.model).folder)
    choose_kernels(options)
    device = ranks.device
    if device.type == "cpu":
        keep_freed_memory()
    is_sharded = choose_sharding(options, ranks)
    bf16 = has_fast_bf16(device) if options.bf16 is None else options.bf16
    share_prefix = shares_prefix(options, device.type)
    config = read_config(options.model)
    refuse_delta(options.model)
    with CheckpointReader(options.model):
        pass  # the files are there, and as long as their headers say
    read_generation_config(options.model)  # the export copies it
    tokenizer = load_tokenizer(options.model)
    template = choose_template(options)
    conversations = tokenize(options, options.data, template, tokenizer)
    check_fit(conversations, config, options)
    held_out, held_out_rows = None, []
    if options.eval_data:
        held_out_tokens = tokenize(options, options.eval_data, template, tokenizer)
        check_fit(held_out_tokens, config, options)
        held_out = ConversationDataset(held_out_tokens, device, share_prefix=share_prefix)
        held_out_rows = pack(held_out_tokens.lengths, options.tokens_per_row)
    prompts = read_prompts(options)
    rows_per_step = choose_rows_per_step(options, ranks)
    epochs = PackedEpochs(
        conversations.lengths, options.tokens_per_row, rows_per_step, seed=options.seed, packing=options.packing
    )
    schedule = make_schedule(options, epochs.steps_per_epoch)
    log.info(
        f"{len(conversations.ids):,} conversations, {sum(conversations.lengths):,} tokens, "
        f"{conversations.num_supervised:,} of them in replies ({template.name}); {epochs.num_rows:,} rows of "
        f"{options.tokens_per_row:,}, {epochs.fill:.1%} full; {epochs.steps_per_epoch:,} steps an epoch, "
        f"{schedule.num_steps:,} in all"
    )
    identity = run_identity(
        options,
        model=model_fingerprint(options.model),
        data=conversations.fingerprint(),
        template=template.name,
        bf16=bf16,
        rows_per_step=rows_per_step,
    )
    return Run(
        options,
        config,
        ranks,
        is_sharded,
        bf16,
        tokenizer,
        template,
        ConversationDataset(conversations, device, share_prefix=share_prefix),
        held_out,
        held_out_rows,
        prompts,
        epochs,
        schedule,
        identity,
    )


def choose_kernels(options: TrainOptions) -> None:
    """Set the precision (`--tf32`) and determinism (`--deterministic`) of CUDA's kernels."""
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = "tf32" if options.tf32 else "ieee"
    else:  # before torch 2.9
        matmul.allow_tf32 = options.tf32
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # needed by cuBLAS before its first use
        torch.use_deterministic_algorithms(True, warn_only=True)


def tokenize(
    options: TrainOptions, paths: Sequence[Path], template: Template, tokenizer: Tokenizer
) -> TokenizedConversations:
    """The examples of these files, tokenized as `options` say.

    Raises:
        VicunaError: as `tokenize_files`.
    """
    return tokenize_files(
        paths,
        template,
        tokenizer,
        max_length=options.max_length,
        max_bad_share=options.max_bad_share,
        workers=options.tokenize_workers,
        cache_dir=options.token_cache_dir,
    )


def choose_sharding(options: TrainOptions, ranks: Ranks) -> bool:
    """Whether the model is sharded over the ranks.

    Raises:
        UsageError: several ranks without sharding; 4-bit weights with it; an offload on a CPU or without sharding.
    """
    if options.fsdp == "off" and ranks.size > 1:
        raise UsageError(f"--fsdp off: {ranks.size} ranks share one model; use --fsdp auto, or one process")
    if options.qlora and (ranks.size > 1 or options.fsdp == "on" or options.cpu_offload):
        raise UsageError("--qlora runs on one device, whole: 4-bit weights are not sharded; use --lora over several")
    if options.cpu_offload and ranks.device.type == "cpu":
        raise UsageError(
            "--cpu-offload moves what a GPU holds to the host's memory, and this run is on a CPU; leave it out"
        )
    if options.cpu_offload and options.fsdp == "off":
        raise UsageError("--cpu-offload is done by FSDP; use it without --fsdp off")
    return options.fsdp == "on" or options.cpu_offload or ranks.size > 1


def choose_rows_per_step(options: TrainOptions, ranks: Ranks) -> int:
    """Rows of a step over all ranks. A run that is resumed on another number of ranks keeps the number it has."""
    rows = options.rows_per_step or options.rows_per_rank * ranks.size
    earlier = None if options.rows_per_step else earlier_rows_per_step(options)
    if earlier and earlier != rows:
        log.info(f"the run in {options.output_dir} has {earlier} rows a step, and keeps them on {ranks.size} ranks")
    return earlier or rows


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than fp32: on a CPU without AMX it is not (80 against 150 GFLOP/s)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def shares_prefix(options: TrainOptions, device_type: str) -> bool:
    """Whether prefixes that examples of a batch have in common are computed once.

    Not by default with an adapter's dropout, which would then be drawn once for all of them.
    """
    if options.share_prefix == "auto":
        return device_type == "cpu" and not options.lora_dropout
    return options.share_prefix == "on"


def choose_template(options: TrainOptions) -> Template:
    """The template asked for, else the one that the model states, else Vicuna's.

    Raises:
        TemplateError: there is no template of that name.
    """
    if options.template is not None:
        return get_template(options.template)
    return load_template(options.model) or get_template(DEFAULT_TEMPLATE)


def check_fit(conversations: TokenizedConversations, config: PretrainedConfig, options: TrainOptions) -> None:
    """Check that the model can take these tokens.

    Raises:
        VicunaError: an example is longer than the model's positions, or a token id outside its vocabulary.
    """
    longest = max(range(len(conversations.ids)), key=conversations.lengths.__getitem__)
    positions = getattr(config, "max_position_embeddings", None)
    if positions and conversations.lengths[longest] > positions:
        raise VicunaError(
            f"record {conversations.ids[longest]} has {conversations.lengths[longest]} tokens and {options.model} only "
            f"{positions} positions; use --max-length {positions}"
        )
    highest = int(conversations.input_ids.max())
    if highest >= config.vocab_size:
        raise VicunaError(
            f"the tokenizer in {options.model} gives token {highest}, but the model has {config.vocab_size} words; "
            "copy the tokenizer files that belong to the model"
        )
