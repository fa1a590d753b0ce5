"""A tiny LLaMA, and LoRA adapters to it as peft saves them."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")


def make_base(folder: Path, dtype: Any = torch.float32, **config: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **config)).to(dtype)
    model.save_pretrained(folder, max_shard_size="6KB")
    (folder / "tokenizer.json").write_text("base's")
    return folder


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """An adapter with random numbers everywhere, as peft saves it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | options)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.1
    tuned.save_pretrained(folder)
    return folder
