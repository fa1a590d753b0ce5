"""Reading LoRA adapters: one line for an adapter that is not complete or cannot be merged."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.weights.tools.builders import make_adapter, make_base, safetensors_torch, torch
from vicuna.errors import VicunaError
from vicuna.weights.tools.adapter import check_adapter
from vicuna.weights.tools.lora import merge_lora


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
        ({"lora_alpha": float("nan")}, "lora_alpha is nan; it takes a number from 0"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000.*characters in all"),
        ({"alpha_pattern": [1]}, r"alpha_pattern is \[1\]; it takes a table"),
        ({"alpha_pattern": {f"a{i}": 1 for i in range(2_000)}}, "it takes a table of at most 1000"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "repeats a repetition"),
        ({"alpha_pattern": {".*.*.*x": 1}}, "more than 2 repetitions in one branch"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern has '\(', no expression"),
        ({"target_modules": ["q_proj"] * 20_000}, "target_modules has 20,000 entries"),
        ({"target_modules": [1]}, "takes 10,000 names"),
        ({"target_modules": ["x" * 9_000]}, "characters in all"),
        (
            {"r": 10**30, "base_model_name_or_path": "../../etc/passwd", "peft_type": {"a": 1}},
            "only LORA can be merged",
        ),
    ],
)
def test_a_config_that_cannot_be_merged_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(VicunaError, match=message):
        check_adapter(adapter)


def test_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match=r"has no adapter_config\.json"):
        check_adapter(tmp_path)
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(VicunaError, match=r"has no adapter_model\.safetensors"):
        check_adapter(adapter)
