"""What config.json may say."""

import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.errors import VicunaError
from vicuna.serve.engines.llama_config import read_config

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 1503,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def write(folder: Path, **changes: Any) -> Path:
    """A folder with a config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return folder


def test_what_is_not_said_has_the_defaults_of_the_llama_family(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, eos_token_id=2))
    assert (config.head_size, config.max_positions, config.rms_norm_eps, config.is_tied) == (16, 2048, 1e-6, False)
    assert config.rope == {"rope_type": "default", "rope_theta": 10000.0} and config.eos_token_ids == (2,)
    assert read_config(write(tmp_path, num_key_value_heads=None)).num_key_value_heads == 6


def test_older_and_newer_keys_of_the_rotary_embedding(tmp_path: Path) -> None:
    older = read_config(write(tmp_path, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2}))
    newer = read_config(write(tmp_path, rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}))
    assert older.rope == newer.rope == {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}


def test_generation_config_names_the_end_tokens_first(tmp_path: Path) -> None:
    folder = write(tmp_path, eos_token_id=2)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert read_config(folder).eos_token_ids == (7, 8)


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, sliding_window=512)).max_positions == 512
    assert read_config(write(tmp_path, sliding_window=512, use_sliding_window=False)).max_positions == 2048


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llamma"}, "model type 'llamma' cannot be served .* did you mean 'llama'"),
        ({"model_type": "gpt2"}, "model type 'gpt2'"),
        ({"model_type": 3}, "model_type is 3; it takes a name"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope type 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor is None; it must be a number above 0"),
        ({"rope_parameters": [1]}, "it takes a table of settings"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"hidden_size": "many"}, "config.json: hidden_size is 'many'; it takes a whole number from 1 to 262,144"),
        ({"num_attention_heads": None}, "num_attention_heads is None; it must be"),
        ({"num_key_value_heads": 4}, "over 4 key-value heads cannot be"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'; it takes a number from 0"),
    ],
)
def test_what_the_engine_cannot_compute_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VicunaError, match=message):
        read_config(write(tmp_path, **changes))
