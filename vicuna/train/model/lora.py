"""LoRA and QLoRA: the model is frozen, and a low-rank product of two matrices beside each linear layer is trained.

    y = W x + (alpha / r) B A x        W frozen, in bfloat16 or as 4-bit numbers; A (r x in) random, B (out x r) zero

The modules are peft's, the 4-bit layers bitsandbytes'. Only A and B have gradients, optimizer state and a place in
checkpoints. They are initialised from the seed and their name, so any number of ranks starts with the same ones.

Sources: LoRA, Hu et al., arXiv:2106.09685; QLoRA, Dettmers et al., arXiv:2305.14314 (NF4, double quantization, adapters
at every linear layer).

Before: `conversation_model` (built on the meta device). After: `wrapping` shards it, `adapter` writes the adapter.
"""

import hashlib
import math
from typing import Any

import torch

from vicuna.errors import UsageError, nearest, require
from vicuna.train.model.parallel import local_shard, shard_start
from vicuna.train.options import TrainOptions

ADAPTER = "default"
BLOCK_SIZE = 64
"""4-bit numbers that share a scale (QLoRA, section 3)."""
SCALES_PER_BLOCK = 256
"""Scales that are quantized together (double quantization)."""


def is_adapter(name: str) -> bool:
    """Whether a weight of that name is part of an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def base_name(name: str) -> str:
    """The name of a weight in the checkpoint of the base, without the `base_layer` of peft's wrapper."""
    return name.replace(".base_layer.", ".")


def lora_config(options: TrainOptions) -> Any:
    """The adapter's peft configuration, as it is also saved."""
    peft = require("peft", "lora")
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(options.model),
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=sorted(options.lora_targets),
        bias="none",
    )


def add_adapters(causal_lm: Any, options: TrainOptions, *, bf16: bool) -> None:
    """Freeze a model, quantize it for QLoRA, and add adapters to its linear layers; before it has memory.

    Args:
        bf16: keep the frozen weights in bfloat16; the adapters are kept in fp32 in any case.

    Raises:
        UsageError: it has no linear layer of a name in `--lora-targets`.
    """
    layers = causal_lm.model.layers
    names = {name.rpartition(".")[2] for name, module in layers.named_modules() if isinstance(module, torch.nn.Linear)}
    for target in options.lora_targets:
        if target not in names:
            raise UsageError(f"--lora-targets {target}: the model's layers have none; {nearest(target, names)}")
    causal_lm.requires_grad_(False)
    if bf16:
        causal_lm.to(torch.bfloat16)
    if options.qlora:
        _quantize(causal_lm)
    peft = require("peft", "lora")
    # peft looks for these names in all linear layers of the model; the head, whose weight the loss uses, has another.
    peft.inject_adapter_in_model(lora_config(options), causal_lm, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    for name, weight in causal_lm.named_parameters():
        weight.requires_grad_(is_adapter(name))


def _quantize(causal_lm: Any) -> None:
    """Replace every linear layer but the head by a 4-bit one; `fill_4bit` fills them."""
    quantized = require("bitsandbytes", "qlora").nn
    for module in list(causal_lm.model.layers.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not torch.nn.Linear:
                continue
            layer = quantized.Linear4bit(
                child.in_features,
                child.out_features,
                bias=child.bias is not None,
                compute_dtype=torch.bfloat16,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            setattr(module, name, layer)
    causal_lm.is_loaded_in_4bit = True  # peft asks for it, to choose its own layer


def saved_by_4bit(config: Any, *, bf16: bool) -> int:
    """Bytes that 4-bit layers save in a model of this shape, less one matrix dequantized for its computation."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    matrices = config.hidden_size * (heads * head_dim + 3 * config.intermediate_size)
    scales = 1 / BLOCK_SIZE + 4 / (BLOCK_SIZE * SCALES_PER_BLOCK)  # one byte each, and an fp32 number for 256 of them
    saved: float = config.num_hidden_layers * matrices * ((2 if bf16 else 4) - 0.5 - scales)
    unpacked: int = 2 * config.hidden_size * config.intermediate_size
    return int(saved) - unpacked


def is_4bit(weight: torch.Tensor) -> bool:
    """Whether a weight is stored as 4-bit numbers."""
    return type(weight).__name__ == "Params4bit"


def fill_4bit(module: Any, weight: torch.Tensor, device: torch.device) -> None:
    """Fill a 4-bit layer; its weights are quantized on the device."""
    quantized = require("bitsandbytes", "qlora").nn
    keywords = {"compress_statistics": True, "quant_type": "nf4", "blocksize": BLOCK_SIZE, "module": module}
    module.weight = quantized.Params4bit(weight.to(torch.bfloat16), requires_grad=False, **keywords).to(device)


@torch.no_grad()
def init_adapter(name: str, weight: torch.Tensor, seed: int) -> None:
    """Initialise this rank's shard of an adapter's weight: A as peft does (Kaiming uniform), B zero."""
    shard = local_shard(weight)
    if ".lora_B." in name:
        shard.zero_()
        return
    own_seed = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(own_seed)
    whole = torch.empty(weight.shape)
    torch.nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator)
    start = shard_start(weight)
    shard.copy_(whole[start : start + len(shard)])
