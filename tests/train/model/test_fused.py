"""The fused operations equal those of transformers, in value and in gradient, and every layer of a model uses them."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vicuna.train.model import fused
from vicuna.train.model.fused import ARCHITECTURES, fuse

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}

SHAPE |= {"num_key_value_heads": 2}


def module_of(name: str) -> Any:
    """A fresh copy of transformers' module: in the one that all others import, something may be replaced already."""
    place = f"transformers.models.{name.lower()}.modeling_{name.lower()}"
    found = importlib.util.find_spec(place)
    assert found is not None
    spec = importlib.util.spec_from_file_location(f"{place}_plain", found.origin)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values_and_gradients(function: Callable[..., Any], *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What a function gives, and what reaches its inputs from a fixed gradient."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    outputs = output if isinstance(output, tuple) else (output,)
    generator = torch.Generator().manual_seed(9)
    torch.autograd.backward(outputs, [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outputs])
    return [*(out.detach() for out in outputs), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def check_equal(ours: Callable[..., Any], theirs: Callable[..., Any], *inputs: torch.Tensor) -> None:
    is_low = inputs[0].dtype == torch.bfloat16
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if is_low else {"rtol": 1e-5, "atol": 1e-5}
    for found, expected in zip(values_and_gradients(ours, *inputs), values_and_gradients(theirs, *inputs), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_operation_equals_that_of_transformers(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = module_of(name)
    norm = getattr(theirs, f"{name}RMSNorm")(32, eps=1e-5).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 7, 32).to(dtype) * 3

    def their_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, x)

    check_equal(lambda x, w: fused._RMSNorm.apply(x, w, 1e-5), their_norm, x, norm.weight)

    gate, up = torch.randn(2, 1, 7, 48).to(dtype)
    check_equal(fused._SwiGLU.apply, lambda gate, up: torch.nn.functional.silu(gate) * up, gate, up)

    query, key = torch.randn(1, 7, 4, 8).to(dtype).transpose(1, 2), torch.randn(1, 2, 7, 8).to(dtype)
    angles = torch.randn(1, 7, 4).repeat(1, 1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    check_equal(
        lambda q, k: fused.apply_rotary_pos_emb(q, k, cos, sin),
        lambda q, k: theirs.apply_rotary_pos_emb(q, k, cos, sin),
        query,
        key,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fused_model_gives_the_loss_and_the_gradients_of_the_plain_one(name: str) -> None:
    theirs = module_of(name)
    config = getattr(importlib.import_module("transformers"), f"{name}Config")(vocab_size=50, **SHAPE)
    torch.manual_seed(0)
    model = getattr(theirs, f"{name}ForCausalLM")(config)
    ids = torch.randint(50, (1, 20))

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    plain = gradients()
    fuse(model)
    used = {type(module).__name__ for module in model.modules() if "forward" in vars(module)}
    assert used == {f"{name}RMSNorm", f"{name}MLP"}
    assert theirs.apply_rotary_pos_emb is fused.apply_rotary_pos_emb
    for weight, expected in plain.items():
        torch.testing.assert_close(gradients()[weight], expected, rtol=1e-4, atol=1e-6)


def test_another_activation_stays_as_it_is() -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_act="gelu", **SHAPE))
    fuse(model)
    assert all("forward" not in vars(layer.mlp) for layer in model.model.layers)


def test_frozen_weights_get_no_gradient_and_cost_none() -> None:
    x, weight = torch.randn(1, 5, 32, requires_grad=True), torch.randn(32)
    fused._RMSNorm.apply(x, weight, 1e-5).sum().backward()
    assert x.grad is not None
    assert weight.grad is None
