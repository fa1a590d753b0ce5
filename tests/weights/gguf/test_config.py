"""Configurations that GGUF cannot express are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.weights.gguf.builders import YARN, make_model
from vicuna.errors import VicunaError
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not converted; known: llama, mistral, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' cannot be said"),
        ({"rope_scaling": {"rope_type": "linear"}}, "the rope scaling's factor is None"),
        ({"rope_scaling": {**YARN, "truncate": False}}, "truncate: false"),
        ({"rope_scaling": {**YARN, "beta_fast": "quick"}}, "beta_fast is 'quick'"),
        ({"rope_theta": 1e300}, "rope_theta is 1e[+]300"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "differ by layer .full_attention."),
        ({"partial_rotary_factor": 0.5}, "rotate only 0.5 of each head"),
        ({"rope_scaling": "linear"}, "takes a table"),
        ({"num_hidden_layers": -2}, "num_hidden_layers is -2"),
        ({"num_key_value_heads": 3}, "do not go together"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"quantization_config": {"bits": 4}}, "is quantized already"),
    ],
)
def test_configurations_that_cannot_be_said(
    tmp_path: Path, tokenizer: Path, changes: dict[str, Any], said: str
) -> None:
    folder = make_model(tmp_path / "model", tokenizer)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(VicunaError, match=said):
        export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])


def test_a_sliding_window_is_warned_about(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", tokenizer, model_type="mistral", sliding_window=64)
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])
    assert "sees the last 64 tokens only" in capsys.readouterr().err
