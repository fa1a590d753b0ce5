"""The fused loss equals logits and cross-entropy in fp64, in value and in both gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.model import loss as loss_module
from vicuna.train.model.loss import linear_cross_entropy, supervised_indices

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def reference(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(hidden @ weight.T, labels, ignore_index=IGNORE_INDEX, reduction="sum")


def fused(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    indices = supervised_indices(labels)
    return linear_cross_entropy(hidden[indices], weight, labels[indices])


def make_inputs(tokens: int, hidden_size: int, vocab: int, seed: int, ignored: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, hidden_size, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, hidden_size, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocab, (tokens,), generator=generator)
    labels[torch.rand(tokens, generator=generator) < ignored] = IGNORE_INDEX
    return hidden, weight, labels


def gradients(function: Loss, inputs: Sequence[torch.Tensor], scale: float) -> list[torch.Tensor]:
    """The loss, and its gradients times `scale` for hidden states and head."""
    hidden, weight = (tensor.clone().requires_grad_() for tensor in inputs[:2])
    loss = function(hidden, weight, inputs[2])
    (loss * scale).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return [loss.detach(), hidden.grad, weight.grad]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(2, 50),
    st.integers(1, 400),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_equals_the_reference_for_any_shape_and_chunk(
    tokens: int, hidden_size: int, vocab: int, chunk_logits: int, seed: int, ignored: float
) -> None:
    inputs = make_inputs(tokens, hidden_size, vocab, seed, ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "CHUNK_LOGITS", chunk_logits)
        found = gradients(fused, inputs, scale=0.25)
    for value, expected in zip(found, gradients(reference, inputs, scale=0.25), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_fp32_is_as_near_to_fp64_as_fp32_can_be() -> None:
    inputs = make_inputs(300, 64, 1000, 1, 0.3)
    found = gradients(fused, [t.float() if t.is_floating_point() else t for t in inputs], scale=1.0)
    for value, expected in zip(found, gradients(reference, inputs, scale=1.0), strict=True):
        # A logit of 8 (the root of the hidden size) is rounded by up to 5e-7, and its probability by that share.
        assert (value - expected).norm() / expected.norm() < 3e-6


def test_bf16_autocast_sums_in_fp32() -> None:
    inputs = [t.float() if t.is_floating_point() else t for t in make_inputs(2000, 64, 500, 2, 0.3)]
    with torch.autocast("cpu", torch.bfloat16):
        loss, grad_hidden, grad_weight = gradients(fused, inputs, scale=1.0)
    assert {loss.dtype, grad_hidden.dtype, grad_weight.dtype} == {torch.float32}
    expected = gradients(reference, inputs, scale=1.0)
    assert abs(loss / expected[0] - 1) < 3e-4  # a sum kept in bf16 is two thousandths off, or more
    for value, exact in zip((grad_hidden, grad_weight), expected[1:], strict=True):
        # Logits of 8 are rounded to bf16, so probabilities are off by a hundredth, whichever kernel sums them up.
        assert (value - exact).norm() / exact.norm() < 3e-2


def test_nothing_is_computed_for_what_needs_no_gradient() -> None:
    hidden, weight, labels = make_inputs(20, 8, 30, 3, 0.0)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight.requires_grad_(), labels).requires_grad is False
    hidden.requires_grad_()
    linear_cross_entropy(hidden, weight.detach(), labels).backward()
    assert hidden.grad is not None


def test_a_second_backward_pass_is_refused_rather_than_wrong() -> None:
    hidden, weight, labels = make_inputs(20, 8, 30, 3, 0.0)
    loss = linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    loss.backward(torch.tensor(2.0, dtype=torch.float64), retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
