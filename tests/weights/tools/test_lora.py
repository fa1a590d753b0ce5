"""Merging LoRA adapters: peft's numbers, tied heads, files, another base."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.weights.tools.builders import make_adapter, make_base, peft, torch
from vicuna.errors import VicunaError
from vicuna.weights.tools.adapter import check_adapter
from vicuna.weights.tools.lora import merge_lora


def merged_by_peft(base: Path, adapter: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    return dict(peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict())


def load(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return dict(model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "down_proj", "gate_proj"]},
        {"use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"layers.0": 3}},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"use_dora": True, "target_modules": ["k_proj", "up_proj"]},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_merged_model_is_pefts(tmp_path: Path, dtype: Any, options: dict[str, Any]) -> None:
    base = make_base(tmp_path / "base", dtype)
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    check_adapter(adapter)
    merge_lora(base, adapter, tmp_path / "merged")
    expected, original = merged_by_peft(base, adapter), load(base)
    changed = 0
    for name, value in load(tmp_path / "merged").items():
        assert value.dtype == dtype
        # peft rounds the product before it adds it, and the sum once more; we round once
        tolerance = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}[dtype]
        assert torch.allclose(value.float(), expected[name].float(), rtol=tolerance, atol=tolerance / 8), name
        changed += not torch.equal(value, original[name])
    assert changed >= 2


@pytest.mark.parametrize("options", [{"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}])
def test_a_tied_head_that_is_changed_becomes_its_own(tmp_path: Path, options: dict[str, Any]) -> None:
    base = make_base(tmp_path / "base", tie_word_embeddings=True)
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    merge_lora(base, adapter, tmp_path / "merged")
    merged = load(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(merged["model.embed_tokens.weight"], load(base)["model.embed_tokens.weight"])
    assert not torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])


def test_files_come_from_the_base_and_the_tokenizer_from_the_adapter(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    merge_lora(base, adapter, tmp_path / "one")
    (adapter / "tokenizer.json").write_text("adapter's")
    merge_lora(base, adapter, tmp_path / "two")
    assert [(tmp_path / name / "tokenizer.json").read_text() for name in ("one", "two")] == ["base's", "adapter's"]
    assert not (tmp_path / "two" / "adapter_config.json").exists()


def test_another_base_is_refused(tmp_path: Path) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter", target_modules=["k_proj"])
    other = make_base(tmp_path / "other", head_dim=4)
    with pytest.raises(VicunaError, match="give the base that it was trained on"):
        merge_lora(other, adapter, tmp_path / "merged")
