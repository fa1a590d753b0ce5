"""Which layers get adapters, what is frozen, and in which dtype."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.builders import MakeOptions, losses
from vicuna.errors import UsageError
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.model.lora import is_4bit, is_adapter
from vicuna.train.save.adapter import export_adapter
from vicuna.weights.tools.adapter import check_adapter


def test_what_is_frozen_is_kept_in_bfloat16_where_that_is_computed_in(
    lora_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[tuple[bool, torch.dtype]] = set()

    def look(model: Any, *arguments: Any, **keywords: Any) -> None:
        kinds.update((is_adapter(name), weight.dtype) for name, weight in model.named_weights().items())
        export_adapter(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", look)
    train(lora_options(bf16=True, max_steps=1))
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_qlora_learns_beside_a_4_bit_model(lora_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    seen: list[Any] = []

    def look(model: Any, *arguments: Any, **keywords: Any) -> None:
        seen.append(model.causal_lm)
        export_adapter(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", look)
    options = lora_options(lora=False, qlora=True, max_steps=10, bf16=True)
    train(options)
    [causal_lm] = seen
    weights = dict(causal_lm.named_parameters())
    assert sum(is_4bit(weight) for weight in weights.values()) == 2 * 7
    assert not is_4bit(causal_lm.lm_head.weight)
    layer = causal_lm.model.layers[0].mlp.down_proj.base_layer
    exact = load_file(options.model / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    near = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    assert (
        0.02 < (near - exact).norm() / exact.norm() < 0.25
    )  # NF4 keeps about a tenth; blocks this few have coarse scales
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(options.output_dir / "adapter")


def test_flags_that_do_not_fit(lora_options: MakeOptions) -> None:
    with pytest.raises(UsageError, match=r"--lora-targets k_prj: .* have none; .*did you mean 'k_proj'"):
        train(lora_options(lora_targets=("q_proj", "k_prj")))
    with pytest.raises(UsageError, match="--lora-targets lm_head"):
        train(lora_options(lora_targets=("lm_head",)))
    with pytest.raises(UsageError, match="4-bit weights are not sharded"):
        train(lora_options(qlora=True, fsdp="on"))
    for name, value in (("lora_r", 0), ("lora_alpha", 0.0), ("lora_dropout", 1.0), ("lora_targets", ())):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}"):
            lora_options(**{name: value})
