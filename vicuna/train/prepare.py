"""Everything a run needs before its first step, checked before any weight is read.

Before: `config`. After: `loop`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from vicuna import log
from vicuna.conversation import Template, get_template, load_template, load_tokenizer
from vicuna.errors import UsageError, VicunaError
from vicuna.train.checkpoint import run_identity
from vicuna.train.config import DEFAULT_TEMPLATE, TrainOptions
from vicuna.train.dataset import ConversationDataset
from vicuna.train.export import read_generation_config
from vicuna.train.model import model_fingerprint, read_config
from vicuna.train.packing import Row, TrainingPlan, pack
from vicuna.train.schedule import CosineSchedule, make_schedule
from vicuna.train.tokenize import TokenizedConversations, tokenize_files
from vicuna.weights.checkpoint import require_safetensors
from vicuna.weights.detect import refuse_delta


@dataclass(frozen=True)
class Run:
    """One training run: what it learns from, in which order, how fast.

    Args:
        bf16: compute in bfloat16.
        held_out: conversations whose loss is measured, or None.
        held_out_rows: the rows they are measured in.
        identity: what makes it this run and no other (see `checkpoint.run_identity`).
    """

    options: TrainOptions
    device: torch.device
    bf16: bool
    tokenizer: PreTrainedTokenizerBase
    template: Template
    conversations: ConversationDataset
    held_out: ConversationDataset | None
    held_out_rows: list[Row]
    plan: TrainingPlan
    schedule: CosineSchedule
    identity: dict[str, Any]

    @property
    def num_steps(self) -> int:
        """Optimizer steps from beginning to end."""
        return self.schedule.num_steps


def prepare(options: TrainOptions) -> Run:
    """Read config, tokenizer and data, and plan the run.

    Raises:
        VicunaError: anything among them that cannot be used.
    """
    device = choose_device(options.device)
    bf16 = has_fast_bf16(device) if options.bf16 is None else options.bf16
    config = read_config(options.model)
    refuse_delta(options.model)
    require_safetensors(options.model)  # the weights are there, and are what their headers say
    read_generation_config(options.model)  # the result will hold it too
    tokenizer = load_tokenizer(options.model)
    template = choose_template(options)
    conversations = tokenize_files(options.data, template, tokenizer, max_length=options.max_length)
    check_fit(conversations, config, options)
    held_out, held_out_rows = None, []
    if options.eval_data:
        held_out_tokens = tokenize_files(options.eval_data, template, tokenizer, max_length=options.max_length)
        check_fit(held_out_tokens, config, options)
        held_out = ConversationDataset(held_out_tokens, device)
        held_out_rows = pack(held_out_tokens.lengths, options.tokens_per_row)
    plan = TrainingPlan(conversations.lengths, options.tokens_per_row, options.rows_per_step, seed=options.seed)
    schedule = make_schedule(options, plan.steps_per_epoch)
    log.info(
        f"{len(conversations.ids):,} conversations, {sum(conversations.lengths):,} tokens, "
        f"{conversations.num_supervised:,} of them in replies ({template.name}); {plan.num_rows:,} rows of "
        f"{options.tokens_per_row:,}, {plan.fill:.1%} full; {plan.steps_per_epoch:,} steps an epoch, "
        f"{schedule.num_steps:,} in all"
    )
    identity = run_identity(
        options,
        model=model_fingerprint(options.model),
        data=conversations.fingerprint(),
        template=template.name,
        bf16=bf16,
    )
    return Run(
        options,
        device,
        bf16,
        tokenizer,
        template,
        ConversationDataset(conversations, device),
        held_out,
        held_out_rows,
        plan,
        schedule,
        identity,
    )


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


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is worth it there: without AMX it takes a CPU twice as long as fp32 (150 against 80 GFLOP/s)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def choose_template(options: TrainOptions) -> Template:
    """The template asked for, else the one that the model states, else Vicuna's.

    Raises:
        TemplateError: there is no template of that name.
    """
    if options.template is not None:
        return get_template(options.template)
    return load_template(options.model) or get_template(DEFAULT_TEMPLATE)


def check_fit(conversations: TokenizedConversations, config: PretrainedConfig, options: TrainOptions) -> None:
    """See that the model can take these tokens.

    Raises:
        VicunaError: a conversation has more positions, or a token a higher id, than the model knows.
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
