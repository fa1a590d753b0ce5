"""Choosing a token from logits, so that the same seed at the same position always makes the same choice.

The noise is a hash of (seed, position, token id), not the state of a generator. So a stream that lost its worker goes
on elsewhere with the same choices, a request's text does not depend on who shares its batch, and CPU and GPU draw the
same noise. Choosing argmax of probability / exponential noise samples from the distribution exactly (Gumbel-max).
"""

import torch

from vicuna.serve.sampling import Sampling


def sample(logits: torch.Tensor, samplings: list[Sampling], positions: list[int]) -> list[int]:
    """One token id for each row.

    Args:
        logits: (N, V) in float32.
        samplings: one for each row; temperature 0 takes the likeliest token.
        positions: for each row, the index in the whole sequence of the token to be chosen.
    """
    chosen = []
    # Row by row: a row of a large vocabulary fits the processor's cache, all rows together do not.
    for scores, sampling, position in zip(logits, samplings, positions, strict=True):
        if sampling.temperature > 0:
            scores = scores / sampling.temperature
            if sampling.top_k or sampling.top_p < 1:
                _keep_likeliest(scores, sampling)
            scores = scores.softmax(dim=-1) / exponential_noise(sampling.seed, position, scores)
        chosen.append(scores.argmax(dim=-1))
    return [int(token) for token in torch.stack(chosen).tolist()] if chosen else []


def _keep_likeliest(scores: torch.Tensor, sampling: Sampling) -> None:
    """Set the scores outside top-k, then outside the smallest set of mass top-p, to minus infinity. In place, (V,)"""
    size = len(scores)
    limit = min(sampling.top_k or size, size)
    # Sorting the whole vocabulary takes milliseconds; the set is nearly always within the 512 likeliest tokens.
    width = limit if sampling.top_k else min(512, size)
    total = scores.logsumexp(dim=-1)
    while True:
        values, order = scores.topk(width)
        if sampling.top_k:
            total = values.logsumexp(dim=-1)
        before = (values - total).exp().cumsum(dim=-1).roll(1)
        before[0] = 0.0
        is_kept = before < sampling.top_p
        if width >= limit or not is_kept[-1]:
            break
        width = min(width * 8, limit)
    kept, kept_values = order[is_kept], values[is_kept]
    scores.fill_(-torch.inf)
    scores[kept] = kept_values


def exponential_noise(seed: int, position: int, like: torch.Tensor) -> torch.Tensor:
    """Exponentially distributed noise, (V,): a pure function of seed, position and token id."""
    key = _mix_number(_mix_number(_mix_number(seed) ^ (seed >> 32)) ^ position)
    bits = torch.arange(like.shape[-1], dtype=torch.int32, device=like.device).bitwise_xor_(_signed(key))
    # Twice, because neighbouring token ids under neighbouring keys differ in few bits.
    bits = _mix(_mix(bits))
    # 23 bits and a half are what float32 holds exactly: of 24 bits, the largest would be rounded to 1, and noise of 0
    # chooses its token however unlikely that is.
    uniform = ((bits >> 9) & 0x7FFFFF).to(torch.float32).add_(0.5).mul_(2.0**-23)  # in (0, 1)
    return uniform.log_().neg_()


# The 32-bit finalizer `lowbias32` (constants: Chris Wellons, hash-prospector, public domain).
SHIFTS, FACTORS, LAST_SHIFT = (16, 15), (0x7FEB352D, 0x846CA68B), 16


def _mix(bits: torch.Tensor) -> torch.Tensor:
    """In place on int32, whose products wrap; `>>` extends the sign, so the upper bits are masked off."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=True):
        bits.bitwise_xor_((bits >> shift).bitwise_and_((1 << 32 - shift) - 1)).mul_(_signed(factor))
    return bits.bitwise_xor_((bits >> LAST_SHIFT).bitwise_and_((1 << 32 - LAST_SHIFT) - 1))


def _mix_number(number: int) -> int:
    number &= 0xFFFFFFFF
    for shift, factor in zip(SHIFTS, FACTORS, strict=True):
        number = (number ^ number >> shift) * factor & 0xFFFFFFFF
    return number ^ number >> LAST_SHIFT


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number
