"""The options of `--plan`: those of a run, and figures in place of weights, data and hardware.

Before: the command line. After: `report`.
"""

from dataclasses import dataclass
from pathlib import Path

from vicuna.errors import UsageError
from vicuna.options import option
from vicuna.train.options import TrainOptions


@dataclass(frozen=True)
class PlanOptions(TrainOptions):
    """The options of `python -m vicuna.train --plan`; nothing that a run needs is required."""

    model: Path | None = option(  # type: ignore[assignment]  # a plan can do without
        None,
        help="base model, as for a run; its config.json is enough, with the tokenizer if there is --data",
        aliases=("--model-name-or-path",),
        metavar="MODEL",
    )
    data: tuple[Path, ...] = option(
        (), help="training records, counted as they will be packed", aliases=("--data-path",), metavar="FILE"
    )
    output_dir: Path | None = option(None, help="not used by a plan", metavar="DIR")  # type: ignore[assignment]
    plan: bool = option(True, help="print memory, tokens, hours and dollars, and exit")
    model_shape: str | None = option(
        None,
        help="a public model instead of --model: llama-7b, llama-13b, llama-3-8b, ...",
        metavar="NAME",
        group="instead of model, data and hardware",
    )
    gpu: str | None = option(
        None,
        help="GPUs to plan for, their kind and number: a100-80gb:8; by default those of this machine",
        metavar="NAME:N",
    )
    num_conversations: int | None = option(None, help="conversations in an epoch, where there is no --data", minimum=1)
    num_tokens: int | None = option(None, help="tokens in an epoch, where there is no --data", minimum=1)
    supervised_share: float = option(
        0.74,
        help="share of the tokens that is in replies, where there is no --data; 0.74 was measured on ShareGPT",
        minimum=0,
    )
    tokens_per_second: float | None = option(
        None, help="speed of one GPU, if it was measured; by default from published marks", minimum=0.001
    )
    json: bool = option(False, help="print the plan as JSON")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (self.model_shape is None):
            raise UsageError("--plan: give --model DIR or --model-shape NAME, one of the two")
        is_stated = self.num_conversations is not None or self.num_tokens is not None
        if self.data and is_stated:
            raise UsageError("--plan: --data is counted; leave --num-conversations and --num-tokens out")
        if (self.num_conversations is None) != (self.num_tokens is None):
            raise UsageError("--plan: --num-conversations and --num-tokens go together")
        if is_stated and (self.num_tokens or 0) < 2 * (self.num_conversations or 0):
            raise UsageError(f"--num-tokens {self.num_tokens} is less than two for each conversation")
        self._require("supervised_share", 0 < self.supervised_share <= 1, "more than 0 and at most 1")
        if self.data and self.model is None:
            raise UsageError("--plan: --data is counted with the tokenizer of --model DIR")
        if self.eval_data:
            raise UsageError("--plan takes no --eval-data; evaluation is not planned")
        self.split_gpu()

    @property
    def model_name(self) -> str:
        """The model's name in the plan."""
        return self.model_shape or str(self.model)

    def split_gpu(self) -> tuple[str, int] | None:
        """Kind and number of the GPUs of `--gpu`; None without it.

        Raises:
            UsageError: it is not NAME:N.
        """
        if self.gpu is None:
            return None
        name, _, number = self.gpu.partition(":")
        if not name or not (number or "1").isdigit() or int(number or "1") < 1:
            raise UsageError(f"--gpu {self.gpu}: give a kind and a number, such as a100-80gb:8")
        return name, int(number or "1")
