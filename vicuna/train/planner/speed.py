"""The speed of a run on any hardware, by the published share of the GPU's peak that others have reached.

Before: `flops`, `hardware`. After: `report`, `preflight`.
"""

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from vicuna.train.model.conversation_model import build_model
from vicuna.train.model.flops import TrainingFlops, count_flops
from vicuna.train.model.wrapping import wrap_model
from vicuna.train.options import TrainOptions
from vicuna.train.planner.hardware import Gpu, PublishedSpeed, get_published_speeds, get_shape

RECOMPUTED = {"none": 1.0, "selective": 1.05, "full": 4 / 3}
"""FLOPs with activation checkpointing, as a multiple of those without: full computes each forward pass twice, selective
only operations that take little time."""
ASSUMED_SHARE = 0.4
"""Of the peak, on a GPU without a published speed."""


@dataclass(frozen=True)
class ModelSize:
    """A model's number of weights, and its FLOPs.

    Args:
        num_trained: weights that are trained.
    """

    num_weights: int
    num_trained: int
    flops: TrainingFlops


@dataclass(frozen=True)
class Speed:
    """The speed of one GPU.

    Args:
        reason: the source of the figure, in words.
        share: of the GPU's peak; None where the peak is not known.
    """

    tokens_per_second: float
    reason: str
    share: float | None = None


def measure_model(config: PretrainedConfig, options: TrainOptions) -> ModelSize:
    """The size of a model as it is trained, adapters included."""
    model = build_model(config)
    plain = replace(options, compile=False, lora=options.has_adapter, qlora=False)  # the same FLOPs
    wrap_model(model, plain, checkpointing="none", mesh=None, bf16=True)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    num_trained = sum(number for number, is_trained in sizes if is_trained)
    return ModelSize(sum(number for number, _ in sizes), num_trained, count_flops(model))


def expected_speed(gpu: Gpu, size: ModelSize, flops_per_token: float, checkpointing: str) -> Speed | None:
    """By the published run with the most similar number of weights; None where the GPU's peak is not known."""
    if gpu.peak_flops is None:
        return None
    published = [speed for speed in get_published_speeds() if speed.gpu == gpu.name]
    known = [(speed, *_share_of_peak(speed, gpu.peak_flops)) for speed in published]
    if known:
        like, share, _ = min(known, key=lambda item: abs(item[2] - size.num_weights))
        share *= RECOMPUTED[like.checkpointing] / RECOMPUTED[checkpointing]
        reason = f"{like.tokens_per_second:,.0f} tokens/s with checkpointing {like.checkpointing}: {like.source}"
    else:
        share = ASSUMED_SHARE / RECOMPUTED[checkpointing]
        reason = "assumed; no published speed is known here, --tokens-per-second tells a measured one"
    return Speed(share * gpu.peak_flops / flops_per_token, reason, share)


def _share_of_peak(speed: PublishedSpeed, peak_flops: float) -> tuple[float, int]:
    """The share of the peak that a published run reached, by `count_flops`, and the number of its weights."""
    model = build_model(get_shape(speed.shape))
    flops = count_flops(model).of_documents([speed.length], speed.length)
    share = speed.tokens_per_second * flops / speed.length / peak_flops
    return share, sum(weight.numel() for weight in model.parameters())
