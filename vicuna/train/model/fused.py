"""RMSNorm, SwiGLU and rotary embedding of a LLaMA layer as fused autograd functions.

transformers computes each in five to twelve tensor operations, every one of which reads and writes the whole
activation and keeps it for the backward pass. Here each is one function with its gradient written out, which keeps only
its inputs.

Measured on (4,096, 256) fp32 activations, forward and backward, one CPU thread: RMSNorm 4.1 ms against 13, rotary
embedding 6.9 against 15, SwiGLU 10.4 against 11 with one activation less to keep.

Before: `conversation_model` calls `fuse` on a transformers model. After: its layers call these.

Shapes: T tokens, H heads, D head size; everything has a leading batch axis of 1.
"""

import sys
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from transformers.activations import ACT2FN

SILU = type(ACT2FN["silu"])
ARCHITECTURES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Architectures whose norm, MLP and rotary embedding are these. (Gemma's norm, for one, multiplies by 1 + weight.)"""
ELEMENTS_ON_CPU = 1 << 17  # per chunk in the norm's backward pass: as many as stay in the processor's cache
MIN_TOKENS = 128  # per chunk, below which chunks are not worth their loop: models too wide to be trained on a CPU
NORMS = {f"{name}RMSNorm" for name in ARCHITECTURES}
MLPS = {f"{name}MLP" for name in ARCHITECTURES}
ATTENTIONS = {f"{name}Attention" for name in ARCHITECTURES}


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight (Zhang and Sennrich, arXiv:1910.07467); statistics in fp32 as in transformers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        exact = x.float()
        scale = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square_()
        scale = scale.mul_(1 / x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (exact * scale).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        size = ELEMENTS_ON_CPU // x.shape[-1] if x.device.type == "cpu" else 0
        size = size if size >= MIN_TOKENS else max(1, x.shape[-2])
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grads = []
        for given, part, scales in zip(*(tensor.split(size, dim=-2) for tensor in (grad, x, scale)), strict=True):
            given, normed = given.float(), part.float() * scales
            product = given * normed
            if grad_weight is not None:
                grad_weight += product.flatten(0, -2).sum(0)
            along = (product @ weight.float()).mul_(-1 / x.shape[-1]).unsqueeze(-1)
            grads.append((given * weight).addcmul_(normed, along).mul_(scales).to(x.dtype))
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grads[0] if len(grads) == 1 else torch.cat(grads, dim=-2), grad_weight, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up (Shazeer, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


class _RotaryEmbedding(torch.autograd.Function):
    """Rotary position embedding (Su et al., arXiv:2104.09864) of queries or keys."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, sin, -1), None, None


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, direction: int) -> torch.Tensor:
    """(1, H, T, D) rotated by the angles of (1, 1, T, D), whose two halves are equal."""
    half = x.shape[-1] // 2
    sin = sin[..., :half]
    first, second = x[..., :half], x[..., half:]
    if torch.compiler.is_compiling():  # the compiler fuses by itself, and cannot write into a slice
        cos, sin = cos[..., :half], sin * direction
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    rotated = x * cos
    rotated[..., :half].addcmul_(second, sin, value=-direction)
    rotated[..., half:].addcmul_(first, sin, value=direction)
    return rotated


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(1, H, T, D) queries or keys rotated by the angles of (1, T, D)."""
    rotated: torch.Tensor = _RotaryEmbedding.apply(x, cos.unsqueeze(1), sin.unsqueeze(1))
    return rotated


def apply_rotary_pos_emb(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as transformers' function of that name."""
    assert unsqueeze_dim == 1
    return rotate(q, cos, sin), rotate(k, cos, sin)


def fuse(model: torch.nn.Module) -> None:
    """Replace the forward of a transformers model's norms and SwiGLU MLPs, and its rotary embedding, by the fused ones.

    The rotary embedding is a function of the architecture's module and is replaced there, for every model of that
    architecture in this process.
    """
    for module in model.modules():
        name = type(module).__name__
        if name in NORMS:
            module.forward = partial(_norm, module)
        elif name in MLPS and isinstance(module.act_fn, SILU):
            module.forward = partial(_mlp, module)
        elif name in ATTENTIONS:
            vars(sys.modules[type(module).__module__])["apply_rotary_pos_emb"] = apply_rotary_pos_emb


def _norm(module: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = _RMSNorm.apply(hidden_states, module.weight, module.variance_epsilon)
    return normed


def _mlp(module: Any, x: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = module.down_proj(_SwiGLU.apply(module.gate_proj(x), module.up_proj(x)))
    return output
