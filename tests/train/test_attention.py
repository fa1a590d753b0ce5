"""The two kernels see the same documents: torch's variable-length one (replaced by a plain stand-in without a GPU)."""

import inspect
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vicuna.train import attention
from vicuna.train.attention import Documents, varlen_attention

LENGTHS = (5, 1, 7, 3)
SCALING = 0.3


def inputs(dtype: torch.dtype, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(LENGTHS), 16, generator=generator) for heads in (6, 2, 2))
    return query.to(device, dtype), key.to(device, dtype), value.to(device, dtype)


def by_dense_mask(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    mask = (document[:, None] == document[None, :]).tril()
    return F.scaled_dot_product_attention(query, key, value, mask, scale=SCALING, enable_gqa=True).transpose(1, 2)


def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    documents = Documents.of(LENGTHS, query.device)
    output, _ = varlen_attention(torch.nn.Module(), query, key, value, None, documents=documents, scaling=SCALING)
    return output


def test_per_document_attention_equals_a_dense_mask() -> None:
    torch.testing.assert_close(run(*inputs(torch.float64)), by_dense_mask(*inputs(torch.float64)))


@pytest.mark.parametrize("is_old", [False, True])
def test_the_flash_kernel_is_called_as_its_release_wants(monkeypatch: pytest.MonkeyPatch, is_old: bool) -> None:
    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale):  # type: ignore[no-untyped-def]
        assert torch.equal(cu_seq_q, cu_seq_k)
        assert cu_seq_q.dtype == torch.int32
        assert max_q == max_k == max(LENGTHS)
        assert query.shape == key.shape == value.shape == (sum(LENGTHS), 6, 16)
        bounds = cu_seq_q.tolist()
        parts = [
            F.scaled_dot_product_attention(
                *(t[a:b].transpose(0, 1) for t in (query, key, value)), is_causal=True, scale=scale
            )
            for a, b in itertools.pairwise(bounds)
        ]
        return torch.cat(parts, dim=1).transpose(0, 1)

    def new(*tensors: Any, scale: float, window_size: tuple[int, int] = (-1, -1)) -> torch.Tensor:
        assert window_size == (-1, 0)
        return kernel(*tensors, scale=scale)

    def old(*tensors: Any, is_causal: bool = False, scale: float) -> torch.Tensor:
        assert is_causal
        return kernel(*tensors, scale=scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", old if is_old else new)
    attention._causal_keyword.cache_clear()
    query, key, value = inputs(torch.float64)
    output = attention._flash_attention(query[0], key[0], value[0], Documents.of(LENGTHS), SCALING)
    attention._causal_keyword.cache_clear()
    torch.testing.assert_close(output, by_dense_mask(query, key, value))


def test_the_installed_torch_has_the_kernel_as_we_call_it() -> None:
    from torch.nn.attention.varlen import varlen_attn

    inspect.signature(varlen_attn).bind(1, 2, 3, 4, 5, 6, 7, scale=1.0, **attention._causal_keyword(None))


def test_a_window_is_told_to_the_kernel_where_a_document_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def kernel(query: torch.Tensor, *_: Any, window_size: tuple[int, int], **__: Any) -> torch.Tensor:
        told.append(window_size)
        return query

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    attention._causal_keyword.cache_clear()
    query, key, value = inputs(torch.float64)
    for window in (max(LENGTHS) - 1, max(LENGTHS)):
        attention._flash_attention(query[0], key[0], value[0], Documents.of(LENGTHS), SCALING, window)
    attention._causal_keyword.cache_clear()
    assert told == [(max(LENGTHS) - 2, 0), (-1, 0)]


@pytest.mark.gpu
def test_on_a_gpu_the_kernel_gives_what_the_cpu_gives() -> None:
    found = run(*inputs(torch.bfloat16, "cuda")).cpu()
    torch.testing.assert_close(found, by_dense_mask(*inputs(torch.bfloat16)), rtol=2e-2, atol=2e-2)
