"""Merging LoRA adapters: peft's numbers, and one line for an adapter that is not whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.errors import VicunaError
from vicuna.weights.tools.adapter import check_adapter
from vicuna.weights.tools.lora import merge_lora

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


def change_tensors(adapter: Path, change: Any) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = safetensors_torch.load_file(path)
    change(tensors)
    safetensors_torch.save_file(tensors, path)


Q = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[f"{Q}.lora_B.weight"].zero_(), r"layers\.1\.self_attn\.q_proj\.lora_B\.weight' is all zeros"),
        (lambda t: t[f"{Q}.lora_A.weight"].fill_(float("nan")), r"lora_A\.weight' holds numbers that are not finite"),
        (lambda t: t.pop(f"{Q}.lora_B.weight"), r"has no lora_B"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.zeros(0)}), "is no matrix"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(16, 3)}), "different ranks"),
        (lambda t: t.update({f"{Q}.token_adapter.x": torch.ones(1)}), "cannot be merged"),
        (lambda t: [t.pop(name) for name in list(t)] and t.update({"base_model.model.lm_head.weight": torch.ones(2)}),
         "has no lora_A and lora_B"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_whole_is_named(tmp_path: Path, change: Any, message: str) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    change_tensors(adapter, change)
    with pytest.raises(VicunaError, match=message):
        check_adapter(adapter)
    with pytest.raises(VicunaError, match=message):
        merge_lora(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"peft_type": "IA3"}, "only LORA can be merged"),
        ({"target_modules": ["q_proj", "v_proj"]}, "no tensor for its target module 'v_proj'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"alora_invocation_tokens": [1]}, "active only behind its invocation tokens"),
    ],
)
def test_a_config_that_cannot_be_merged_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(VicunaError, match=message):
        check_adapter(adapter)


def test_another_base_is_refused(tmp_path: Path) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter", target_modules=["k_proj"])
    other = make_base(tmp_path / "other", head_dim=4)
    with pytest.raises(VicunaError, match="give the base that it was trained on"):
        merge_lora(other, adapter, tmp_path / "merged")


def test_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match=r"has no adapter_config\.json"):
        check_adapter(tmp_path)
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(VicunaError, match=r"has no adapter_model\.safetensors"):
        check_adapter(adapter)
