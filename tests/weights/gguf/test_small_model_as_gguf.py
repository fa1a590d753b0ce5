"""SmolLM2-135M-Instruct through every type: llama.cpp's own bytes, its replies, the figures of the check."""

import hashlib
from pathlib import Path

import pytest

from tests.weights.gguf.builders import transformers_tokenizer
from vicuna.cli import main
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.gguf.check import HARD_STRINGS, check_gguf
from vicuna.weights.gguf.container import GGUFFile
from vicuna.weights.gguf.from_gguf import import_gguf
from vicuna.weights.gguf.llama_cpp import LlamaCpp
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES
from vicuna.weights.small_model import find_small_model

# SHA-256 over names, types and bytes of all 272 tensors, sorted by name, as `llama_model_quantize` of llama.cpp wrote
# them (a build of its release v0.5.0 by others than xllamacpp's), out of the bf16 file.
LLAMA_CPPS_OWN = {
    "f32": "0e5e2e430f5eb14660651f2d9bf108d7451873f9735eda407d7ebe382ed17500",
    "f16": "172ca1bca180617f5825ac96885984bceb01004f12281b64699b38e0ee3aace1",
    "bf16": "d5ccd6ec457eaa17c0135bc74c1f49c8d863cbdca17159f7531f085cffea56af",
    "q8_0": "dd47244a918f8227407e6dfbc6730a2d605958e7f8cbc3bfc5c8333707dba190",
    "q4_0": "fff4256a5b2464a681aa0a1f32ee5362eb766a28cd741f11a3a8292050821a6f",
    "q4_k_m": "7c3f292cb17258bbd2802d89587d5d65e602ea54489a8c86237f164638fae041",
    "q5_k_m": "10c31b57c4ac539d937d97983ce57d29b89ace7ea3e17611f814bedc18382e0c",
    "q6_k": "85cfda3a946da7275cb4ef461e97306f70b797a69d53ced54c5a828d712aa4f1",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILE_TYPES)
def test_every_tensor_has_llama_cpps_own_bytes(tmp_path: Path, name: str) -> None:
    export_gguf(find_small_model(), tmp_path / "a.gguf", FILE_TYPES[name])
    digest = hashlib.sha256()
    with GGUFFile(tmp_path / "a.gguf") as file:
        assert len(file.tensors) == 272
        for tensor in sorted(file.tensors.values(), key=lambda tensor: tensor.name):
            digest.update(f"{tensor.name} {tensor.type.name}".encode())
            digest.update(file.read(tensor.name))
    assert digest.hexdigest() == LLAMA_CPPS_OWN[name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("f32", 0.0001), ("bf16", 0.001), ("q8_0", 0.02), ("q4_k_m", 0.15)])
def test_the_check_prints_how_near_it_is(
    tmp_path: Path, name: str, limit: float, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(find_small_model()), "--output", str(tmp_path / "a.gguf"), "--type", name, "--check"]
    assert main(["export", "gguf", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "18 of 18 texts the same" in printed and "top-5 agreement" in printed
    assert check_gguf(find_small_model(), tmp_path / "a.gguf").agreement.mean_kl < limit


@pytest.mark.slow
def test_it_knows_the_capital_of_france(tmp_path: Path) -> None:
    export_gguf(find_small_model(), tmp_path / "a.gguf", FILE_TYPES["f16"])
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with LlamaCpp(tmp_path / "a.gguf") as llama_cpp:
        reply = llama_cpp.chat(question, 24)["choices"][0]
        assert "Paris" in reply["message"]["content"] and reply["finish_reason"] == "stop"
        tokenizer = transformers_tokenizer(find_small_model())
        prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        assert llama_cpp.render(question) == prompt


@pytest.mark.slow
def test_there_and_back_it_is_the_same_model(tmp_path: Path) -> None:
    folder = find_small_model()
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["bf16"])
    import_gguf(tmp_path / "a.gguf", tmp_path / "back")
    with CheckpointReader(folder) as ours, CheckpointReader(tmp_path / "back") as theirs:
        assert set(ours.tensors) == set(theirs.tensors)
        assert all(ours.read(name) == theirs.read(name) for name in ours.tensors)
    before, after = transformers_tokenizer(folder), transformers_tokenizer(tmp_path / "back")
    assert before.chat_template == after.chat_template
    assert all(before(text)["input_ids"] == after(text)["input_ids"] for text in HARD_STRINGS)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
