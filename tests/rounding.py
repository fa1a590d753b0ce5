"""What rounding may change, and no more: another processor's kernels add the same numbers up in another order.

So equal computations give equal numbers only up to a tolerance; where the numbers are rounded once more to a short
dtype, one of them may land on the neighbouring value; and where two tokens are all but equally likely, either may be
the likeliest.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

NEAR_TIE = 1e-3
"""Logits (or scores) in fp32 that are this close may change places: what rounding moves is a hundredth of it."""
NUM_DRAWS = 8


def assert_equal_weights(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    rtol: float,
    atol: float,
    share_rounded_apart: float = 0.01,
) -> None:
    """Equal up to these tolerances; where they are stored in 16 bits, a small share may be one step of the dtype apart.

    A step (a unit in the last place) is at most `torch.finfo(dtype).eps` of the number. Two numbers that differ by a
    thousandth of a step before they are rounded are rounded apart once in a thousand times; counted over all tensors.
    """
    assert found.keys() == expected.keys()
    num_rounded = num_apart = 0
    for name, tensor in found.items():
        other = expected[name]
        assert tensor.dtype == other.dtype, name
        is_short = tensor.dtype.itemsize == 2
        step = torch.finfo(tensor.dtype).eps if is_short else 0.0
        torch.testing.assert_close(tensor.float(), other.float(), rtol=rtol + step, atol=atol, msg=_named(name))
        if is_short:
            num_rounded += tensor.numel()
            num_apart += int((tensor != other).sum())
    assert num_apart <= share_rounded_apart * num_rounded, f"{num_apart} of {num_rounded} are rounded apart"


def _named(name: str) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"


def greedy_replies(
    model: Any, prompt_ids: list[int], max_new_tokens: int, *, margin: float = NEAR_TIE, end_ids: Iterable[int] = ()
) -> list[list[int]]:
    """Every greedy reply of transformers' `model.generate`, where any token may be the likeliest whose logit is at most
    `margin` below the best one. As a rule that is one reply. A reply that ends has its end token.
    """
    ends = list(end_ids)
    if not max_new_tokens:
        return [[]]
    input_ids = torch.tensor([prompt_ids])
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),  # or it takes a token 0 for padding
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    reply = output.sequences[0, len(prompt_ids) :].tolist()
    replies = [reply]
    for place, logits in enumerate(output.logits):
        for token in (logits[0] >= logits[0].max() - margin).nonzero()[:, 0].tolist():
            if token == reply[place]:
                continue
            head = [*reply[:place], token]
            num_left = 0 if token in ends else max_new_tokens - len(head)
            tails = greedy_replies(model, prompt_ids + head, num_left, margin=margin, end_ids=ends)
            replies += [head + tail for tail in tails]
    return replies


def is_near_tie(choose: Callable[[torch.Tensor], int], logits: torch.Tensor, *, margin: float = NEAR_TIE) -> bool:
    """Whether the choice of a token would be another one if each of its logits (V,) were up to `margin` off."""
    generator = torch.Generator().manual_seed(0)
    token = choose(logits)
    noise = (torch.rand(NUM_DRAWS, len(logits), generator=generator) * 2 - 1) * margin
    return any(choose(logits + row) != token for row in noise)
