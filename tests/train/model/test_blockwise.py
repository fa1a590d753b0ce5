"""Attention as a sum over blocks equals a dense mask, in value and in gradients."""

from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.model.reference import attend, by_dense_mask, inputs
from vicuna.train.batches.documents import Documents
from vicuna.train.model import blockwise


def with_gradients(output: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients of a fixed weighted sum of it."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), tensors)]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int], list[slice] | None]:
    """Lengths, shared prefixes, and the spans of the queries (None: all tokens)."""
    lengths, shared, prefix = [], [], 0
    for number in range(draw(st.integers(1, 5))):
        lengths.append(draw(st.integers(1, 20)))
        if number == 0 or draw(st.booleans()):
            prefix, first = 0, lengths[-1]
        elif prefix == 0:
            prefix = draw(st.integers(1, first))
        shared.append(prefix)
    if draw(st.booleans()):
        return lengths, shared, None
    spans, start = [], 0
    for length in lengths:
        edges = sorted(draw(st.sets(st.integers(start, start + length), max_size=6)))
        spans += [slice(low, high) for low, high in zip(edges[::2], edges[1::2], strict=False)]
        start += length
    return lengths, shared, spans


@settings(max_examples=150, deadline=None)
@given(batches())
def test_blocks_of_attention_equal_a_dense_mask(batch: tuple[list[int], list[int], list[slice] | None]) -> None:
    lengths, shared, spans = batch
    tensors = [tensor.requires_grad_() for tensor in inputs(torch.float64, lengths=lengths)]
    indices = torch.cat([torch.arange(s.start, s.stop) for s in spans]) if spans else torch.arange(0)
    indices = torch.arange(sum(lengths)) if spans is None else indices
    query = tensors[0].index_select(2, indices)
    documents = Documents.of(tuple(lengths), shared=tuple(shared))
    with patch.object(blockwise, "KEYS_AT_A_TIME", 6):
        found = with_gradients(attend(query, *tensors[1:], documents=documents, query_spans=spans), tensors)
    expected = by_dense_mask(tensors, lengths, shared).index_select(1, indices)
    for ours, theirs in zip(found, with_gradients(expected, tensors), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_documents_are_the_same_in_blocks(dtype: torch.dtype) -> None:
    lengths, shared = (700, 450, 90), (0, 100, 100)
    tensors = [tensor.requires_grad_() for tensor in inputs(dtype, lengths=lengths)]
    found = with_gradients(attend(*tensors, documents=Documents.of(lengths, shared=shared)), tensors)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = with_gradients(by_dense_mask(exact, lengths, shared), exact)
    for ours, theirs in zip(found, expected, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (2e-6 if dtype == torch.float32 else 2e-2)  # 16 steps of fp32, 2.5 of bf16, which sums in fp32
