"""How fast a run will be on hardware that is not here: by the share of a GPU's peak that others have published.

Before: `flops`, `hardware`. After: `plan`.
"""

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from vicuna.train.model.arrange import arrange
from vicuna.train.model.conversation_model import build_model
from vicuna.train.model.flops import TrainingFlops, count_flops
from vicuna.train.options import TrainOptions
from vicuna.train.planner.hardware import Gpu, Mark, get_marks, get_shape

RECOMPUTED = {"none": 1.0, "selective": 1.05, "full": 4 / 3}
"""Work with activation checkpointing, as a multiple of that without: full computes each forward pass twice, selective
nothing that weighs much."""
ASSUMED_SHARE = 0.4
"""Of the peak, on a GPU that nobody has published a speed for."""


@dataclass(frozen=True)
class Size:
    """A model's size and arithmetic.

    Args:
        num_trained: of its weights.
    """

    num_weights: int
    num_trained: int
    flops: TrainingFlops


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one GPU.

    Args:
        reason: where the figure comes from, in words.
        share: of the GPU's peak; None where the peak is not known.
    """

    tokens_per_second: float
    reason: str
    share: float | None = None


def measure(config: PretrainedConfig, options: TrainOptions) -> Size:
    """The size of a model as it will be trained."""
    model = build_model(config)
    plain = replace(options, compile=False, lora=options.has_adapter, qlora=False)  # the same arithmetic
    arrange(model, plain, checkpointing="none", mesh=None, bf16=True)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    num_trained = sum(number for number, is_trained in sizes if is_trained)
    return Size(sum(number for number, _ in sizes), num_trained, count_flops(model))


def expected_speed(gpu: Gpu, size: Size, flops_per_token: float, checkpointing: str) -> Speed | None:
    """By the published run most like this one in the number of weights; None where the GPU's peak is not known."""
    if gpu.peak_flops is None:
        return None
    marks = [(mark, *_share(mark, gpu.peak_flops)) for mark in get_marks() if mark.gpu == gpu.name]
    if marks:
        mark, share, _ = min(marks, key=lambda item: abs(item[2] - size.num_weights))
        share *= RECOMPUTED[mark.checkpointing] / RECOMPUTED[checkpointing]
        reason = f"{mark.tokens_per_second:,.0f} tokens/s with checkpointing {mark.checkpointing}: {mark.source}"
    else:
        share = ASSUMED_SHARE / RECOMPUTED[checkpointing]
        reason = "assumed; no published speed is known here, --tokens-per-second tells a measured one"
    return Speed(share * gpu.peak_flops / flops_per_token, reason, share)


def _share(mark: Mark, peak_flops: float) -> tuple[float, int]:
    """The share of the peak that somebody's run reached, counted as here, and the number of its weights."""
    model = build_model(get_shape(mark.shape))
    flops = count_flops(model).of_documents([mark.length], mark.length)
    share = mark.tokens_per_second * flops / mark.length / peak_flops
    return share, sum(weight.numel() for weight in model.parameters())
