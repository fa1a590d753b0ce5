"""Models exported, run by llama.cpp, and imported again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.gguf.builders import LLAMA3, YARN, byte_level, make_model, same_weights
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.gguf.card import Card
from vicuna.weights.gguf.check import check_gguf
from vicuna.weights.gguf.from_gguf import import_gguf
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [
        ("F32", {}),
        ("F16", {"tie_word_embeddings": True}),
        ("BF16", {"model_type": "mistral", "num_key_value_heads": 4, "head_dim": 32, "sliding_window": None}),
        ("BF16", {"model_type": "qwen2", "tie_word_embeddings": True}),
        ("F16", {"model_type": "qwen3", "head_dim": 24}),
        ("F32", {"attention_bias": True, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("F32", {"rope_scaling": LLAMA3}),
        ("F32", {"rope_theta": None, "rope_parameters": {**YARN, "rope_theta": 5e5, "attention_factor": 1.3}}),
    ],
)
def test_llama_cpp_answers_as_transformers_does_and_the_way_back_is_exact(
    tmp_path: Path, tokenizer: Path, dtype: str, changes: dict[str, Any]
) -> None:
    if changes.get("model_type", "").startswith("qwen"):  # transformers cuts text as Qwen does, whatever the files say
        tokenizer = byte_level(tmp_path / "tokenizer", "qwen2")
    folder = make_model(tmp_path / "model", tokenizer, dtype, shard_bytes=100_000, **changes)
    file = tmp_path / "model.gguf"
    made = export_gguf(folder, file, FILE_TYPES[dtype.lower()])
    assert made.size_bytes == file.stat().st_size
    report = check_gguf(folder, file)
    assert report.engine.startswith("llama.cpp") and not report.mismatches
    assert report.agreement.mean_kl < 1e-4, report
    import_gguf(file, tmp_path / "back")
    same_weights(folder, tmp_path / "back")
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "back"))
    for key in ("model_type", "architectures", "hidden_size", "num_key_value_heads", "tie_word_embeddings"):
        assert before[key] == after[key]
    export_gguf(tmp_path / "back", tmp_path / "again.gguf", FILE_TYPES[dtype.lower()], card=Card(name="model"))
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"])
def test_quantized_files_run(tmp_path: Path, tokenizer: Path, name: str) -> None:
    folder = make_model(tmp_path / "model", tokenizer, hidden_size=256, intermediate_size=512, scale=0.05)
    export_gguf(folder, tmp_path / "model.gguf", FILE_TYPES[name])
    report = check_gguf(folder, tmp_path / "model.gguf")
    assert report.agreement.mean_kl < (0.1 if "q4" in name else 0.01)
    import_gguf(tmp_path / "model.gguf", tmp_path / "back", "F32")
    with CheckpointReader(folder) as ours, CheckpointReader(tmp_path / "back") as theirs:
        for key in ours.tensors:
            one, two = (np.frombuffer(reader.read(key), "<f4") for reader in (ours, theirs))
            assert np.abs(one - two).max() <= 0.13 * np.abs(one).max()
