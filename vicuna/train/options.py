"""Every option of training: its name, default, unit and help.

Names are those of Hugging Face's `TrainingArguments` and FastChat's `train.py` where these have one. Defaults are the
recipe published for Vicuna (learning rate 2e-5, cosine, warm-up 0.03, three epochs, no weight decay, sequences of
2,048: the FastChat repository's training section) except for the batch, which depends on the machine.

Before: the command line. After: everything else of `vicuna.train`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vicuna.errors import UsageError
from vicuna.io.files import vicuna_home
from vicuna.io.jsonl import JsonObject
from vicuna.options import option, to_dict
from vicuna.weights.resolve import NAMES

DEFAULT_TEMPLATE = "vicuna_v1.1"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `python -m vicuna.train`."""

    model: Path = option(
        help=f"base model: {NAMES}",
        aliases=("--model-name-or-path",),
        metavar="MODEL",
    )
    data: tuple[Path, ...] = option(
        help="training records: JSON lines, or a JSON array in the ShareGPT shape",
        aliases=("--data-path",),
        metavar="FILE",
    )
    output_dir: Path = option(
        help="receives model/ (the result), checkpoints/, train_log.jsonl, loss.svg and train_config.json",
        metavar="DIR",
    )
    eval_data: tuple[Path, ...] = option(
        (),
        help="held-out records: their loss is measured before, during and after training",
        aliases=("--held-out", "--eval-data-path"),
        metavar="FILE",
        group="data",
    )
    template: str | None = option(
        None,
        help=f"conversation template; by default the one that the model states, else {DEFAULT_TEMPLATE}",
        metavar="NAME",
    )
    max_length: int = option(
        2048,
        help="longest conversation in tokens; longer ones are left out",
        aliases=("--model-max-length",),
        group="length of rows",
    )
    packing: bool = option(
        True,
        help="fill rows with whole conversations; without, each has a row of its own, the longest first in a step",
    )
    row_length: int | None = option(
        None, help="tokens in a packed row, at least --max-length (which is the default); sets the memory of a step"
    )
    share_prefix: Literal["auto", "on", "off"] = option(
        "auto",
        help="compute what conversations of a batch have in common at their beginning (a system prompt) once for all; "
        "the losses are the same. auto does it on a CPU, and not with --lora-dropout",
    )
    max_bad_share: float = option(
        0.01, help="share of the records that may be left out, too long or malformed; more stops the run", group="data"
    )
    tokenize_workers: int | None = option(
        None, help="processes that tokenize; by default one for a small file and one a core for a large one"
    )
    token_cache: str | None = option(
        None, help="folder that keeps tokens for later runs, or off; by default tokens/ in $VICUNA_HOME", metavar="DIR"
    )
    num_train_epochs: float = option(3.0, help="passes over the data", group="learning")
    max_steps: int | None = option(None, help="optimizer steps; replaces --num-train-epochs")
    per_device_train_batch_size: int = option(1, help="packed rows in one forward pass")
    gradient_accumulation_steps: int = option(1, help="forward passes of each rank in one optimizer step")
    rows_per_step: int | None = option(
        None,
        help="packed rows in one optimizer step, whatever the number of ranks; replaces --gradient-accumulation-steps",
        aliases=("--global-batch-size",),
    )
    learning_rate: float = option(2e-5, help="peak learning rate; falls to zero along a cosine")
    warmup_ratio: float = option(0.03, help="share of the steps over which the learning rate rises")
    weight_decay: float = option(0.0, help="AdamW's weight decay, on matrices only")
    optim: Literal["adamw", "adamw_8bit"] = option(
        "adamw", help="adamw_8bit keeps its two moments in 2 bytes a weight instead of 8"
    )
    adam_beta1: float = option(0.9, help="AdamW's decay of the mean gradient")
    adam_beta2: float = option(0.999, help="AdamW's decay of the mean squared gradient")
    adam_epsilon: float = option(1e-8, help="AdamW's epsilon")
    max_grad_norm: float = option(1.0, help="longest gradient; a longer one is scaled down to it")
    bf16: bool | None = option(
        None,
        help="compute in bfloat16 (weights and optimizer stay in fp32); by default where the hardware is fast at it: "
        "on CUDA, and on a CPU with AMX",
        group="numbers",
    )
    tf32: bool = option(True, help="on CUDA: multiply what is left of fp32 in TF32, which is much faster")
    deterministic: bool = option(
        False,
        help="on CUDA: use kernels that give the same bits every time, so that a resumed run ends with the same ones",
    )
    lora: bool = option(
        False,
        help="learn a small adapter beside the frozen model (LoRA); it is written to adapter/, and "
        "vicuna weights merge-lora makes it part of the model. Ten times the learning rate of a full run suits it",
        group="LoRA",
    )
    qlora: bool = option(False, help="--lora with the frozen model as 4-bit numbers, on one device")
    lora_r: int = option(16, help="rank of the adapter")
    lora_alpha: float = option(32.0, help="scale of the adapter: it counts alpha / r times")
    lora_dropout: float = option(0.0, help="share of the adapter's inputs that is dropped while learning")
    lora_targets: tuple[str, ...] = option(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        help="layers that get an adapter, by the last part of their name; by default all of a decoder layer",
        metavar="NAME",
    )
    device: str | None = option(
        None, help="cpu, cuda or cuda:N; by default cuda where there is one", metavar="NAME", group="devices and memory"
    )
    fsdp: Literal["auto", "on", "off"] = option(
        "auto",
        help="shard weights, gradients and optimizer over the ranks (FSDP2); auto does it where there are several",
    )
    reshard_after_forward: bool = option(
        True,
        help="sharded: drop each layer between its forward and backward pass, which saves memory and costs traffic",
    )
    seed: int = option(42, help="decides the order of the data", group="learning")
    logging_steps: int = option(1, help="steps between two lines of the log", group="watching")
    eval_steps: int | None = option(None, help="steps between two evaluations; by default only before and after")
    save_steps: int = option(
        500, help="steps between two checkpoints; 0 saves only when stopped by a signal", group="saving"
    )
    save_total_limit: int = option(2, help="checkpoints kept; older ones are deleted")
    save_in_background: bool = option(
        True,
        help="write checkpoints while training goes on, where the host has memory for a copy",
        aliases=("--async-save",),
    )
    resume: Literal["auto", "never"] = option(
        "auto", help="auto goes on from the newest checkpoint in --output-dir; never refuses a directory that has one"
    )
    overwrite_output_dir: bool = option(
        False, help="delete what an earlier run left in --output-dir and start afresh", aliases=("--overwrite",)
    )
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = option(
        "auto",
        help="what a layer computes again in the backward pass instead of keeping it: nothing; all but matrix products "
        "and attention; everything. The losses are the same; auto takes the first of them that fits",
        aliases=("--gradient-checkpointing",),
        group="devices and memory",
    )
    cpu_offload: bool = option(
        False,
        help="keep weights, gradients and optimizer in the host's memory, and update there: fits more, runs slower",
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), help="tell the log to these as well; tensorboard writes into --output-dir", group="watching"
    )
    sample_prompts: Path | None = option(
        None,
        help="prompts, one a line (or .jsonl records), that the model answers at every evaluation, into samples.jsonl",
        metavar="FILE",
    )
    num_samples: int | None = option(
        None,
        help="prompts answered: of --sample-prompts (by default all), or of --eval-data (by default none)",
        minimum=0,
    )
    sample_tokens: int = option(96, help="longest sampled answer in tokens", minimum=1)
    loss_spike_factor: float = option(
        5.0,
        help="stop before the update, naming the records, when a step's loss is so many times the median of the steps "
        "before it; 0 never does",
        minimum=0,
    )
    price_per_gpu_hour: float | None = option(
        None, help="dollars for an hour of one GPU; by default from a dated table", minimum=0, group="cost"
    )
    plan: bool = option(
        False, help="print what the run will take (memory, hours, dollars) and exit; --plan --help has more flags"
    )
    compile: bool = option(
        False, help="compile each decoder layer: a slow first step, faster ones after it", group="devices and memory"
    )

    def __post_init__(self) -> None:
        for name in ("max_length", "per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("lora_r", self.lora_r >= 1, "at least 1")
        self._require("lora_alpha", self.lora_alpha > 0, "more than 0")
        self._require("lora_dropout", 0 <= self.lora_dropout < 1, "at least 0 and less than 1")
        self._require("lora_targets", bool(self.lora_targets), "at least one name")
        self._require("max_bad_share", 0 <= self.max_bad_share < 1, "at least 0 and less than 1")
        self._require("tokenize_workers", self.tokenize_workers is None or self.tokenize_workers >= 1, "at least 1")
        self._require("save_total_limit", self.save_total_limit >= 1, "at least 1")
        self._require("save_steps", self.save_steps >= 0, "0 or more")
        self._require("rows_per_step", self.rows_per_step is None or self.rows_per_step >= 1, "at least 1")
        self._require("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1")
        self._require("eval_steps", self.eval_steps is None or self.eval_steps >= 1, "at least 1")
        has_something = bool(self.eval_data) or self.sample_prompts is not None
        self._require(
            "eval_steps", self.eval_steps is None or has_something, "used together with --eval-data or --sample-prompts"
        )
        self._require("num_train_epochs", 0 < self.num_train_epochs < float("inf"), "more than 0")
        self._require("learning_rate", 0 < self.learning_rate < float("inf"), "more than 0")
        self._require("max_grad_norm", self.max_grad_norm > 0, "more than 0")
        self._require("adam_epsilon", self.adam_epsilon > 0, "more than 0")
        self._require("weight_decay", self.weight_decay >= 0, "0 or more")
        for name in ("warmup_ratio", "adam_beta1", "adam_beta2"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and less than 1")
        is_compilable = not (self.compile and self.activation_checkpointing == "selective")
        self._require("activation_checkpointing", is_compilable, "none or full together with --compile")
        longest = self.row_length is None or self.row_length >= self.max_length
        self._require("row_length", self.packing or self.row_length is None, "left out together with --no-packing")
        is_shareable = self.share_prefix != "on" or not self.lora_dropout  # what is dropped would be drawn once for all
        self._require("share_prefix", is_shareable, "auto or off together with --lora-dropout")
        self._require("row_length", longest, f"at least --max-length, which is {self.max_length}")

    def _require(self, name: str, is_good: bool, what: str) -> None:
        if not is_good:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)} must be {what}")

    @property
    def tokens_per_row(self) -> int:
        """The length of a packed row."""
        return self.row_length or self.max_length

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, and the model is frozen."""
        return self.lora or self.qlora

    @property
    def token_cache_dir(self) -> Path | None:
        """The folder of the token cache; None for none."""
        return None if self.token_cache == "off" else Path(self.token_cache or vicuna_home() / "tokens")

    @property
    def rows_per_rank(self) -> int:
        """Rows of each rank in one optimizer step, where `rows_per_step` is not given."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


WITHOUT_INFLUENCE = {
    *("model", "data", "template", "row_length", "bf16", "output_dir", "eval_data", "device"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "rows_per_step", "fsdp", "reshard_after_forward"),
    *("logging_steps", "eval_steps", "save_steps", "save_total_limit", "resume", "overwrite_output_dir"),
    *("deterministic", "activation_checkpointing", "cpu_offload", "compile", "save_in_background"),
    *("price_per_gpu_hour", "plan", "report_to", "sample_prompts", "num_samples", "sample_tokens", "loss_spike_factor"),
    *("max_bad_share", "tokenize_workers", "token_cache", "share_prefix"),
}
"""Options that do not change the weights, or that the run's identity has in a resolved form (`output`)."""


def influential_options(options: TrainOptions) -> JsonObject:
    """The options that decide the weights: a part of a run's identity."""
    kept = {name: value for name, value in to_dict(options).items() if name not in WITHOUT_INFLUENCE}
    return {**kept, "row_length": options.tokens_per_row}
