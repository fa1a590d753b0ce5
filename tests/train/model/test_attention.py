"""Every kernel equals the dense mask; for torch's variable-length one there is a stand-in where there is no GPU."""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.train.model.reference import LENGTHS, SCALING, SHARED, attend, by_dense_mask, dense_mask, inputs
from vicuna.train.batches.documents import Documents
from vicuna.train.model import attention


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("window", [None, 4])
def test_one_document_after_the_other_equals_a_dense_mask(
    shared: tuple[int, ...], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "can_skip_queries", lambda *_: False)
    query, key, value = inputs(torch.float64)
    found = attend(query, key, value, documents=Documents.of(LENGTHS, shared=shared), sliding_window=window)
    mask = dense_mask(LENGTHS, shared)
    if window:
        position = torch.cat([torch.arange(n) + before for n, before in zip(LENGTHS, shared, strict=True)])
        mask &= position[:, None] - position[None, :] < window
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=SCALING, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("is_old", [False, True])
def test_the_flash_kernel_is_called_as_its_release_wants(
    monkeypatch: pytest.MonkeyPatch, is_old: bool, shared: tuple[int, ...]
) -> None:
    def kernel(tensors: Sequence[Any], scale: float) -> torch.Tensor:
        query, key, value, bounds, key_bounds, longest, longest_keys = tensors
        assert bounds.dtype == key_bounds.dtype == torch.int32
        assert longest == max(LENGTHS)
        assert longest_keys == max(own + prefix for own, prefix in zip(LENGTHS, shared, strict=True))
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
        return kernel(tensors, scale)

    def old(*tensors: Any, is_causal: bool = False, scale: float) -> torch.Tensor:
        assert is_causal
        return kernel(tensors, scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", old if is_old else new)
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    attention._causal_keyword.cache_clear()
    query, key, value = inputs(torch.float64)
    output = attend(query, key, value, documents=Documents.of(LENGTHS, shared=shared))
    attention._causal_keyword.cache_clear()
    torch.testing.assert_close(output, by_dense_mask((query, key, value), shared=shared))


def test_the_installed_torch_has_the_kernel_as_we_call_it() -> None:
    from torch.nn.attention.varlen import varlen_attn

    inspect.signature(varlen_attn).bind(1, 2, 3, 4, 5, 6, 7, scale=1.0, **attention._causal_keyword(None))


def test_the_kernel_gets_a_window_where_a_document_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def kernel(query: torch.Tensor, *_: Any, window_size: tuple[int, int], **__: Any) -> torch.Tensor:
        told.append(window_size)
        return query

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "has_flash", lambda *_: True)
    attention._causal_keyword.cache_clear()
    for window in (max(LENGTHS) - 1, max(LENGTHS)):
        attend(*inputs(torch.float64), sliding_window=window)
    attention._causal_keyword.cache_clear()
    assert told == [(max(LENGTHS) - 2, 0), (-1, 0)]


@pytest.mark.gpu
@pytest.mark.parametrize("shared", SHARED)
def test_on_a_gpu_the_kernel_gives_what_the_cpu_gives(shared: tuple[int, ...]) -> None:
    found = attend(*inputs(torch.bfloat16, "cuda"), documents=Documents.of(LENGTHS, "cuda", shared)).cpu()
    torch.testing.assert_close(found, by_dense_mask(inputs(torch.bfloat16), shared=shared), rtol=2e-2, atol=2e-2)
