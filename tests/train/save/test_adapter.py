"""The exported adapter is the trained one, for peft and merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.train.builders import LORA_RANK, MakeOptions, adapter_of, losses
from vicuna.errors import VicunaError
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.model.lora import is_adapter
from vicuna.train.save.adapter import export_adapter, write_config
from vicuna.weights.tools.adapter import check_adapter
from vicuna.weights.tools.lora import merge_lora


def test_only_the_adapter_learns_and_is_saved(lora_options: MakeOptions) -> None:
    options = lora_options(max_steps=15)
    base = (options.model / "model.safetensors").read_bytes()
    result = train(options)
    assert result.model == options.output_dir / "adapter"
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(result.model)
    adapter = adapter_of(options)
    assert len(adapter) == 2 * 2 * 7  # A and B, two layers, seven linear layers each
    assert all(LORA_RANK in tensor.shape for tensor in adapter.values())
    assert not (result.model / "config.json").exists()
    assert (result.model / "vicuna_template.json").is_file()
    assert (options.model / "model.safetensors").read_bytes() == base
    [checkpoint] = sorted((options.output_dir / "checkpoints").glob("step-*"))[-1:]
    saved = load_file(checkpoint / "model-0-of-1.safetensors")
    assert saved and all(is_adapter(name) for name in saved)


def test_peft_and_a_merged_model_compute_what_training_computed(
    lora_options: MakeOptions, tmp_path: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    kept: list[torch.Tensor] = []
    batch = dataset.batch([(0,)])

    def keep_logits(model: Any, *arguments: Any, **keywords: Any) -> None:
        with torch.no_grad():
            kept.append(model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T)
        export_adapter(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", keep_logits)
    options = lora_options(lora_alpha=7.0, lora_targets=("q_proj", "down_proj"))
    train(options)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    with torch.no_grad():
        plain = base(batch.input_ids).logits[0]
        by_peft = peft.PeftModel.from_pretrained(base, options.output_dir / "adapter")(batch.input_ids).logits[0]
    assert (plain - kept[0]).abs().max() > 1e-2
    torch.testing.assert_close(by_peft, kept[0], rtol=1e-4, atol=1e-4)
    merge_lora(options.model, options.output_dir / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(merged(batch.input_ids).logits[0], kept[0], rtol=1e-4, atol=1e-4)


def test_an_adapter_that_learned_nothing_is_not_left_as_a_result(lora_options: MakeOptions) -> None:
    options = lora_options(learning_rate=1e-60, max_steps=1)
    with pytest.raises(VicunaError, match=r"lora_B.*is all zeros"):
        train(options)
    assert not (options.output_dir / "adapter").exists()


def test_the_configurations_modules_stand_in_order(lora_options: MakeOptions, tmp_path: Path) -> None:
    write_config(tmp_path, lora_options())
    modules = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules) and len(modules) == 7
