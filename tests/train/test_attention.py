"""Every kernel sees the same documents; torch's variable-length one has a plain stand-in where there is no GPU."""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vicuna.train.batches.documents import Documents
from vicuna.train.model import attention, blockwise
from vicuna.train.model.attention import varlen_attention

LENGTHS = (5, 1, 7, 3)
SHARED = ((0, 0, 0, 0), (0, 3, 3, 0), (0, 4, 0, 2))
"""Of the documents' tokens: those that stand with an earlier document."""
SCALING = 0.3


def inputs(
    dtype: torch.dtype, device: str = "cpu", lengths: Sequence[int] = LENGTHS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(lengths), 16, generator=generator) for heads in (6, 2, 2))
    return query.to(device, dtype), key.to(device, dtype), value.to(device, dtype)


def visible(lengths: Sequence[int], shared: Sequence[int]) -> torch.Tensor:
    """(T, T): which token (a row) sees which, said once more from the beginning."""
    sees = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    start = leader = 0
    for length, before in zip(lengths, shared, strict=True):
        leader = start if before == 0 else leader
        for token in range(start, start + length):
            sees[token, leader : leader + before] = True
            sees[token, start : token + 1] = True
        start += length
    return sees


def by_dense_mask(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int] = LENGTHS,
    shared: Sequence[int] = SHARED[0],
) -> torch.Tensor:
    mask = visible(lengths, shared)
    return F.scaled_dot_product_attention(query, key, value, mask, scale=SCALING, enable_gqa=True).transpose(1, 2)


def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
    options = {"documents": Documents.of(LENGTHS, query.device), **options}
    output, _ = varlen_attention(torch.nn.Module(), query, key, value, None, scaling=SCALING, **options)
    return output


def with_gradients(output: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), tensors)]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int], list[slice] | None]:
    """Lengths, what is shared, and the tokens that look (None: all)."""
    lengths, shared, before = [], [], 0
    for number in range(draw(st.integers(1, 5))):
        lengths.append(draw(st.integers(1, 20)))
        if number == 0 or draw(st.booleans()):
            before, leader = 0, lengths[-1]
        elif before == 0:
            before = draw(st.integers(1, leader))
        shared.append(before)
    if draw(st.booleans()):
        return lengths, shared, None
    runs, start = [], 0
    for length in lengths:
        edges = sorted(draw(st.sets(st.integers(start, start + length), max_size=6)))
        runs += [slice(low, high) for low, high in zip(edges[::2], edges[1::2], strict=False)]
        start += length
    return lengths, shared, runs


@settings(max_examples=150, deadline=None)
@given(batches())
def test_blocks_of_attention_equal_a_dense_mask(batch: tuple[list[int], list[int], list[slice] | None]) -> None:
    lengths, shared, runs = batch
    tensors = [tensor.requires_grad_() for tensor in inputs(torch.float64, lengths=lengths)]
    places = torch.cat([torch.arange(s.start, s.stop) for s in runs]) if runs else torch.arange(0)
    places = torch.arange(sum(lengths)) if runs is None else places
    query = tensors[0].index_select(2, places)
    documents = Documents.of(tuple(lengths), shared=tuple(shared))
    with patch.object(blockwise, "KEYS_AT_A_TIME", 6):
        found = with_gradients(run(query, *tensors[1:], documents=documents, query_spans=runs), tensors)
    expected = by_dense_mask(*tensors, lengths, shared).index_select(1, places)
    for ours, theirs in zip(found, with_gradients(expected, tensors), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("window", [None, 4])
def test_one_document_after_the_other_equals_a_dense_mask(
    shared: tuple[int, ...], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "can_skip_queries", lambda *_: False)
    query, key, value = inputs(torch.float64)
    found = run(query, key, value, documents=Documents.of(LENGTHS, shared=shared), sliding_window=window)
    mask = visible(LENGTHS, shared)
    if window:
        position = torch.cat([torch.arange(n) + before for n, before in zip(LENGTHS, shared, strict=True)])
        mask &= position[:, None] - position[None, :] < window
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=SCALING, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_documents_are_the_same_in_blocks(dtype: torch.dtype) -> None:
    lengths, shared = (700, 450, 90), (0, 100, 100)
    tensors = [tensor.requires_grad_() for tensor in inputs(dtype, lengths=lengths)]
    found = with_gradients(run(*tensors, documents=Documents.of(lengths, shared=shared)), tensors)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    for ours, theirs in zip(found, with_gradients(by_dense_mask(*exact, lengths, shared), exact), strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("is_old", [False, True])
def test_the_flash_kernel_is_called_as_its_release_wants(
    monkeypatch: pytest.MonkeyPatch, is_old: bool, shared: tuple[int, ...]
) -> None:
    def kernel(query, key, value, bounds, key_bounds, longest, longest_keys, scale):  # type: ignore[no-untyped-def]
        assert bounds.dtype == key_bounds.dtype == torch.int32
        assert longest == max(LENGTHS)
        assert longest_keys == max(own + before for own, before in zip(LENGTHS, shared, strict=True))
        assert query.shape[1:] == key.shape[1:] == value.shape[1:] == (6, 16)
        parts = []
        for (a, b), (c, d) in zip(*(itertools.pairwise(each.tolist()) for each in (bounds, key_bounds)), strict=True):
            q, k, v = (x.transpose(0, 1) for x in (query[a:b], key[c:d], value[c:d]))
            # Its causal mask is aligned at the end: a document's last query sees all of its keys.
            mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
            parts.append(F.scaled_dot_product_attention(q, k, v, mask, scale=scale))
        return torch.cat(parts, dim=1).transpose(0, 1)

    def new(*tensors: Any, scale: float, window_size: tuple[int, int] = (-1, -1)) -> torch.Tensor:
        assert window_size == (-1, 0)
        return kernel(*tensors, scale=scale)

    def old(*tensors: Any, is_causal: bool = False, scale: float) -> torch.Tensor:
        assert is_causal
        return kernel(*tensors, scale=scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", old if is_old else new)
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    attention._causal_keyword.cache_clear()
    query, key, value = inputs(torch.float64)
    output = run(query, key, value, documents=Documents.of(LENGTHS, shared=shared))
    attention._causal_keyword.cache_clear()
    torch.testing.assert_close(output, by_dense_mask(query, key, value, shared=shared))


def test_the_installed_torch_has_the_kernel_as_we_call_it() -> None:
    from torch.nn.attention.varlen import varlen_attn

    inspect.signature(varlen_attn).bind(1, 2, 3, 4, 5, 6, 7, scale=1.0, **attention._causal_keyword(None))


def test_a_window_is_told_to_the_kernel_where_a_document_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def kernel(query: torch.Tensor, *_: Any, window_size: tuple[int, int], **__: Any) -> torch.Tensor:
        told.append(window_size)
        return query

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    attention._causal_keyword.cache_clear()
    for window in (max(LENGTHS) - 1, max(LENGTHS)):
        run(*inputs(torch.float64), sliding_window=window)
    attention._causal_keyword.cache_clear()
    assert told == [(max(LENGTHS) - 2, 0), (-1, 0)]


@pytest.mark.gpu
@pytest.mark.parametrize("shared", SHARED)
def test_on_a_gpu_the_kernel_gives_what_the_cpu_gives(shared: tuple[int, ...]) -> None:
    found = run(*inputs(torch.bfloat16, "cuda"), documents=Documents.of(LENGTHS, "cuda", shared)).cpu()
    torch.testing.assert_close(found, by_dense_mask(*inputs(torch.bfloat16), shared=shared), rtol=2e-2, atol=2e-2)
