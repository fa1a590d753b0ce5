"""Configurations as metadata: sizes under the architecture's prefix, and how the rope is scaled."""

import math
from typing import Any

import pytest

from tests.weights.gguf.builders import CONFIG, LLAMA3, YARN
from vicuna.io.jsonl import JsonObject
from vicuna.weights.gguf.config import read_config
from vicuna.weights.gguf.config_to_gguf import config_metadata


def metadata_of(**changes: Any) -> JsonObject:
    config = read_config({**CONFIG, "vocab_size": 500, **changes}, "config.json")
    return {key: value.value for key, value in config_metadata(config).items()}


def test_sizes_of_an_architecture() -> None:
    found = metadata_of(model_type="qwen2")
    assert found["qwen2.block_count"] == 2 and found["qwen2.attention.head_count_kv"] == 2
    assert found["qwen2.attention.key_length"] == found["qwen2.rope.dimension_count"] == 16
    assert found["vicuna.model_type"] == "qwen2"
    assert not any("scaling" in key for key in found)


def test_mistral_is_llama_with_its_own_type() -> None:
    found = metadata_of(model_type="mistral")
    assert found["llama.vocab_size"] == 500 and found["vicuna.model_type"] == "mistral"


@pytest.mark.parametrize(("attention_factor", "written"), [(None, None), (1.3, 1.3 / (0.1 * math.log(4) + 1))])
def test_yarn(attention_factor: float | None, written: float | None) -> None:
    found = metadata_of(rope_scaling={**YARN, "attention_factor": attention_factor})
    assert found["llama.rope.scaling.type"] == "yarn" and found["llama.rope.scaling.factor"] == 4.0
    assert found["llama.rope.scaling.original_context_length"] == 128
    assert found.get("llama.rope.scaling.attn_factor") == (written and pytest.approx(written))


def test_llama3_is_scaled_by_a_tensor_and_noted_for_imports() -> None:
    found = metadata_of(rope_scaling=LLAMA3)
    assert "llama.rope.scaling.type" not in found
    assert '"rope_type": "llama3"' in found["vicuna.rope_scaling"]
