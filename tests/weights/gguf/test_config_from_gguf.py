"""Metadata as `config.json` and `generation_config.json`: the inverse of the export, and files of other tools."""

from pathlib import Path
from typing import Any

import pytest

from tests.weights.gguf.builders import CONFIG, LLAMA3, YARN
from vicuna.errors import VicunaError
from vicuna.weights.gguf.config import read_config, rope_factors
from vicuna.weights.gguf.config_from_gguf import Metadata, build_config, generation_config
from vicuna.weights.gguf.config_to_gguf import config_metadata


def metadata_of(**changes: Any) -> Metadata:
    config = read_config({**CONFIG, "vocab_size": 500, **changes}, "config.json")
    values = {key: value.value for key, value in config_metadata(config).items()}
    return Metadata(Path("a.gguf"), {"general.architecture": config.architecture.name, **values})


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_configuration_comes_back(model_type: str) -> None:
    head_dim = {"head_dim": 16}
    found = build_config(metadata_of(model_type=model_type, **head_dim), {"output.weight"}, 500, "F16", None)
    for key in ("model_type", "hidden_size", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"):
        assert found[key] == {**CONFIG, "model_type": model_type}[key]
    assert (found["torch_dtype"], found["tie_word_embeddings"], found["vocab_size"]) == ("float16", False, 500)


@pytest.mark.parametrize("is_ours", [True, False])
def test_rope_scaling_comes_back(is_ours: bool) -> None:
    """Out of the key that an export leaves, and out of llama.cpp's keys where another tool wrote the file."""
    metadata = metadata_of(rope_scaling=YARN)
    if not is_ours:
        del metadata.values["vicuna.rope_scaling"]
    found = build_config(metadata, {"output.weight"}, 500, "F32", None)["rope_scaling"]
    assert {key: found[key] for key in YARN} == YARN


def test_factors_are_compared_with_llama3s() -> None:
    config = {**CONFIG, "vocab_size": 500, "rope_scaling": LLAMA3}
    factors = rope_factors(read_config(config, "config.json"))
    assert factors is not None
    found = build_config(metadata_of(rope_scaling=LLAMA3), {"output.weight"}, 500, "F32", factors)
    assert found["rope_scaling"] == LLAMA3
    with pytest.raises(VicunaError, match="factors that are not Llama 3's"):
        build_config(metadata_of(rope_scaling=LLAMA3), {"output.weight"}, 500, "F32", factors + 1)


def test_generation_config_has_every_token_that_ends_a_reply() -> None:
    keys = {"bos": 1, "eos": 2, "eot": 5, "eom": 900}  # 900 is not in the vocabulary
    metadata = Metadata(Path("a.gguf"), {f"tokenizer.ggml.{name}_token_id": value for name, value in keys.items()})
    assert generation_config(metadata, 500) == {"bos_token_id": 1, "eos_token_id": [2, 5]}


@pytest.mark.parametrize(("value", "default"), [(None, None), (-1, 3), (2**31, None), (True, None), ("4", None)])
def test_a_size_that_is_none(value: Any, default: int | None) -> None:
    metadata = Metadata(Path("a.gguf"), {} if value is None else {"key": value})
    with pytest.raises(VicunaError, match=r"a\.gguf says key is"):
        metadata.size("key", default)
