"""Weights and configuration on their way into a GGUF file and back; what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.builders import to_bytes
from tests.weights.gguf_models import byte_level, make_model, small_sentencepiece
from vicuna.cli import main
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.files.numbers import to_bfloat16
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.gguf import quantize as quantize_module
from vicuna.weights.gguf import to_gguf as to_gguf_module
from vicuna.weights.gguf.card import Card, size_label
from vicuna.weights.gguf.check import check_gguf
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.names import permute, unpermute
from vicuna.weights.gguf.quantize import encode, native_quantizer, numpy_quantizer
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES, GGMLType, ModelShape, tensor_type

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("made") / "tokenizer", "gpt-2")


def same_weights(one: Path, other: Path) -> None:
    with CheckpointReader(one) as ours, CheckpointReader(other) as theirs:
        assert set(ours.tensors) == set(theirs.tensors)
        for name, tensor in ours.tensors.items():
            assert (tensor.dtype, tensor.shape) == (theirs.tensors[name].dtype, theirs.tensors[name].shape), name
            assert ours.read(name) == theirs.read(name), name


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


def test_a_wrong_rope_would_be_seen(tmp_path: Path, tokenizer: Path) -> None:
    """The figures above can fail: the same weights with another rope are another model."""
    scaled = make_model(tmp_path / "scaled", tokenizer, rope_scaling=LLAMA3)
    plain = make_model(tmp_path / "plain", tokenizer)
    export_gguf(scaled, tmp_path / "scaled.gguf", FILE_TYPES["f32"])
    assert check_gguf(plain, tmp_path / "scaled.gguf").agreement.mean_kl > 1e-3


def test_another_models_file_is_exit_code_3(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_model(tmp_path / "one", tokenizer, scale=0.4)
    other = make_model(tmp_path / "other", tokenizer, scale=0.4, num_hidden_layers=3)
    export_gguf(one, tmp_path / "one.gguf", FILE_TYPES["q8_0"])
    assert main(["export", "check", "--model", str(other), "--gguf", str(tmp_path / "one.gguf"), "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mismatches"] == []
    assert "does not answer as" in captured.err


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


def test_the_mixture_of_types_is_llama_cpps() -> None:
    model = ModelShape(32, False)
    shape = (4096, 4096)

    def kind(name: str, layer: str = "q4_k_m", **changes: Any) -> str:
        return tensor_type(FILE_TYPES[layer], name, changes.get("shape", shape), changes.get("model", model)).name

    more = [n for n in range(32) if kind(f"blk.{n}.attn_v.weight") == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert more == [n for n in range(32) if kind(f"blk.{n}.ffn_down.weight", "q5_k_m") == "Q6_K"]
    assert kind("output.weight") == "Q6_K" and kind("output.weight", "q8_0") == "Q8_0"
    assert kind("output.weight", "q4_0") == "Q6_K"
    assert kind("token_embd.weight") == "Q4_K"
    assert kind("token_embd.weight", model=ModelShape(32, True)) == "Q6_K"
    assert kind("blk.5.attn_v.weight", model=ModelShape(80, False, True)) == "Q6_K"
    assert kind("blk.11.attn_v.weight", model=ModelShape(80, False, True)) == "Q5_K"
    assert kind("blk.0.attn_norm.weight", shape=(4096,)) == "F32"
    assert kind("blk.0.attn_q.bias", "f16", shape=(4096,)) == "F32"
    assert [kind("blk.8.ffn_up.weight", layer, shape=(64, 576)) for layer in ("q4_k_m", "q5_k_m", "q6_k")] == [
        "Q5_0", "Q5_1", "Q8_0",
    ]  # fmt: skip
    assert kind("blk.8.ffn_up.weight", shape=(64, 40)) == "F16" == kind("output.weight", "q8_0", shape=(64, 40))


@pytest.mark.parametrize("kind", [GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q8_0])
def test_numpy_makes_the_bytes_that_llama_cpp_makes(kind: GGMLType) -> None:
    quantizer = native_quantizer()
    assert quantizer is not None
    random = np.random.default_rng(1)
    values = (random.normal(size=(64, 256)) * np.exp(random.normal(size=(64, 1)) * 3)).astype("<f4")
    values[0] = 0
    values[1, ::2] = -0.0
    assert quantizer(values, kind) == numpy_quantizer(values, kind)


def test_without_xllamacpp(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path / "model", tokenizer, hidden_size=256, intermediate_size=512)
    for name in ("q8_0", "q4_0"):
        export_gguf(folder, tmp_path / f"{name}.gguf", FILE_TYPES[name])
    for module in (quantize_module, to_gguf_module):
        monkeypatch.setattr(module, "native_quantizer", lambda: None)
    export_gguf(folder, tmp_path / "numpy.gguf", FILE_TYPES["q8_0"])
    assert (tmp_path / "numpy.gguf").read_bytes() == (tmp_path / "q8_0.gguf").read_bytes()
    export_gguf(folder, tmp_path / "numpy4.gguf", FILE_TYPES["q4_0"])
    kinds = {name: GGUFModel(tmp_path / f"{name}.gguf").file.tensors for name in ("numpy4", "q4_0")}
    assert (kinds["numpy4"]["output.weight"].type, kinds["q4_0"]["output.weight"].type) == (
        GGMLType.Q8_0,
        GGMLType.Q6_K,
    )
    with pytest.raises(VicunaError, match=r"q4_k, q6_k needs llama.cpp's code.*pip install 'vicuna\[export\]'"):
        export_gguf(folder, tmp_path / "k.gguf", FILE_TYPES["q4_k_m"])
    monkeypatch.setattr("vicuna.weights.gguf.check.is_installed", lambda: False)
    report = check_gguf(folder, tmp_path / "numpy.gguf")
    assert report.engine == "transformers, read back from the file" and not report.mismatches
    assert report.agreement.mean_kl < 0.01


def test_the_metadata_describe_the_model(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "tiny-model", tokenizer)
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: tiny\nlanguage:\n- en\n- de\nbase_model: someone/base\ntags: [chat]\n---\n"
    )
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])
    said = GGUFModel(tmp_path / "a.gguf").metadata.values
    assert said["general.name"] == "tiny-model" and said["general.license"] == "other"
    assert said["general.license.name"] == "tiny" and said["general.languages"] == ["en", "de"]
    assert said["general.base_model.0.repo_url"] == "https://huggingface.co/someone/base"
    assert said["general.tags"] == ["chat"] and said["general.file_type"] == 1
    card = Card("Named", "apache-2.0", "https://example.org/model")
    export_gguf(folder, tmp_path / "b.gguf", FILE_TYPES["f16"], card=card)
    said = GGUFModel(tmp_path / "b.gguf").metadata.values
    assert (said["general.name"], said["general.license"]) == ("Named", "apache-2.0")
    assert said["general.source.url"] == "https://example.org/model" and "general.license.name" not in said
    (folder / "README.md").write_text("---\n[: broken\n---\n")
    export_gguf(folder, tmp_path / "c.gguf", FILE_TYPES["f16"])
    assert "front matter is not YAML" in capsys.readouterr().err
    assert [size_label(n) for n in (134_515_008, 6_738_415_616, 13_015_864_320, 999, 2_500)] == [
        "135M", "6.7B", "13B", "1.0K", "2.5K",
    ]  # fmt: skip


def test_other_readers_read_it(tmp_path: Path, tokenizer: Path) -> None:
    from gguf import GGUFReader

    folder = make_model(tmp_path / "model", tokenizer)
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["q8_0"])
    reader, ours = GGUFReader(tmp_path / "a.gguf"), GGUFModel(tmp_path / "a.gguf")
    assert {tensor.name for tensor in reader.tensors} == set(ours.file.tensors)
    with ours.file:
        for tensor in reader.tensors:
            assert tensor.data.tobytes() == ours.file.read(tensor.name)
    for key, value in ours.file.metadata.items():
        assert reader.fields[key].contents() == value, key


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_permuting_is_undone(heads: int) -> None:
    values = np.arange(heads * 8 * 5).reshape(heads * 8, 5)
    assert (unpermute(permute(values, heads), heads) == values).all()
    assert (unpermute(permute(values[:, 0], heads), heads) == values[:, 0]).all()
    assert permute(values, heads)[:4, 0].tolist() == [0, 20, 5, 25]


def test_bfloat16_keeps_what_is_no_number() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 1e-40], "<f4")
    bits = np.frombuffer(to_bfloat16(values), "<u2")
    back = (bits.astype("<u4") << 16).view("<f4")
    assert np.isnan(back[1]) and back[2] == np.inf and back[3] == -np.inf and np.signbit(back[4])
    quiet = np.array([0x7F800001], "<u4").view("<f4")  # would become infinite if its low bits were cut off
    assert np.isnan((np.frombuffer(to_bfloat16(quiet), "<u2").astype("<u4") << 16).view("<f4"))


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (math.nan, GGMLType.Q8_0, "tensor a has NaN or infinite numbers, which q8_0"),
        (math.inf, GGMLType.Q4_K, "tensor a has NaN or infinite numbers, which q4_k"),
        (1e9, GGMLType.Q4_0, "tensor a has numbers above 65504, which q4_0"),
        (1e6, GGMLType.F16, "tensor a has numbers above 65504, which f16"),
    ],
)
def test_numbers_that_a_type_cannot_hold(value: float, kind: GGMLType, said: str) -> None:
    values = np.ones((2, 256), "<f4")
    values[1, 7] = value
    with pytest.raises(VicunaError, match=said):
        encode(values, kind, "a")
    for holds in (GGMLType.F32, GGMLType.BF16):
        assert encode(values, holds, "a")


def test_nan_in_the_weights_names_the_tensor_and_leaves_no_file(tmp_path: Path, tokenizer: Path) -> None:
    folder = make_model(tmp_path / "model", tokenizer)
    path = folder / "model.safetensors"
    with CheckpointReader(folder) as reader:
        shard = reader.shards[0]
        tensor = reader.tensors["model.layers.1.mlp.up_proj.weight"]
    data = bytearray(path.read_bytes())
    place = len(shard.preamble) + tensor.offset + 400
    data[place : place + 4] = to_bytes(np.array([np.nan], "<f4"), "F32")
    path.write_bytes(data)
    with pytest.raises(VicunaError, match=r"tensor model.layers.1.mlp.up_proj.weight has NaN"):
        export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["q8_0"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]
    export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f32"])
    import_gguf(tmp_path / "a.gguf", tmp_path / "back")
    same_weights(folder, tmp_path / "back")


def rewrite(folder: Path, change: Any) -> None:
    """Write the checkpoint anew with a changed plan."""
    with CheckpointReader(folder) as reader:
        data = {name: reader.read(name) for name in reader.tensors}
        plan = change({name: (tensor.dtype, tensor.shape, data[name]) for name, tensor in reader.tensors.items()})
    shards, index = split_into_shards(Tensor(name, dtype, shape) for name, (dtype, shape, _) in plan.items())
    write_checkpoint(folder, shards, index, lambda tensor: [plan[tensor.name][2]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: {k: v for k, v in plan.items() if "up_proj" not in k}, "has no tensor for blk.0.ffn_up.weight"),
        (lambda plan: {**plan, "model.layers.0.mlp.lora_A.weight": plan["model.norm.weight"]}, "lora_A.* has no place"),
        (
            lambda plan: {**plan, "model.layers.7.mlp.up_proj.weight": plan["model.norm.weight"]},
            "more than config.json",
        ),
        (lambda plan: {**plan, "model.norm.weight": ("I32", (64,), bytes(256))}, "is not of F32, F16, BF16"),
        (lambda plan: {**plan, "model.norm.weight": ("F32", (32,), bytes(128))}, "norm.weight F32 .32. should be .64."),
        (lambda plan: {**plan, "lm_head.weight": ("F32", (3, 64), bytes(768))}, "vocabulary was resized in one"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, tokenizer: Path, change: Any, said: str) -> None:
    folder = make_model(tmp_path / "model", tokenizer)
    rewrite(folder, change)
    with pytest.raises(VicunaError, match=said):
        export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])
    assert not (tmp_path / "a.gguf").exists()


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
        ({"rope_scaling": "linear"}, "take a table"),
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


def test_what_stands_in_the_way(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path / "model", tokenizer)
    there = tmp_path / "there.gguf"
    there.write_text("mine")
    with pytest.raises(VicunaError, match=r"there.gguf already exists; choose another name, or give --overwrite"):
        export_gguf(folder, there, FILE_TYPES["f16"])
    assert there.read_text() == "mine"
    export_gguf(folder, there, FILE_TYPES["f16"], overwrite=True)
    assert there.read_bytes().startswith(b"GGUF")
    with pytest.raises(VicunaError, match="is a folder"):
        export_gguf(folder, tmp_path, FILE_TYPES["f16"])
    with pytest.raises(VicunaError, match="is not a folder"):
        export_gguf(folder / "model.safetensors", tmp_path / "a.gguf", FILE_TYPES["f16"])
    with pytest.raises(VicunaError, match="exists and is not empty"):
        import_gguf(there, folder)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    for act in (
        lambda: export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"]),
        lambda: import_gguf(there, tmp_path / "back"),
    ):
        with pytest.raises(VicunaError, match="free some or choose another disk"):
            act()
    (folder / "config.json").unlink()
    with pytest.raises(VicunaError, match=r"has no config.json"):
        export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])


def test_a_delta_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    folder = make_model(tmp_path / "model", tokenizer)

    def near_zero(plan: Any) -> Any:
        return {k: (d, s, bytes(len(b)) if k.endswith("norm.weight") else b) for k, (d, s, b) in plan.items()}

    rewrite(folder, near_zero)
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        export_gguf(folder, tmp_path / "a.gguf", FILE_TYPES["f16"])


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, tokenizer: Path) -> None:
    folder = make_model(tmp_path / "model", tokenizer)
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from vicuna.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", "gguf", "--model", str(folder), "--output", str(tmp_path / "a.gguf"), "--type", "f32"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "larger than a file may be here" in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1 and str(tmp_path / "a.gguf") in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]


def test_a_kill_leaves_no_file_that_passes_for_whole(tmp_path: Path) -> None:
    folder = make_model(
        tmp_path / "model", small_sentencepiece(tmp_path / "tokenizer"), num_hidden_layers=40, hidden_size=256
    )
    output = tmp_path / "a.gguf"
    command = [sys.executable, "-m", "vicuna.export", "gguf", "--model", str(folder), "--output", str(output)]
    process = subprocess.Popen([*command, "--type", "q4_k_m"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".a.gguf.*.tmp")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists() or GGUFModel(output)
    subprocess.run([*command, "--type", "q8_0", "--overwrite"], check=True, capture_output=True)
    assert GGUFModel(output).shape.num_layers == 40


@pytest.mark.parametrize("module", ["vicuna.export", "vicuna.import_gguf"])
def test_the_commands_say_what_they_do(module: str) -> None:
    run = [sys.executable, "-m", module]
    assert subprocess.run(run, capture_output=True, text=True).returncode == 2
    told = subprocess.run([*run, "gguf", "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "type" in told.stdout
    wrong = subprocess.run([*run, "ggfu"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "did you mean 'gguf'?" in wrong.stderr


def test_import_by_command(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_model(tmp_path / "model", tokenizer, "BF16")
    arguments = ["--model", str(folder), "--output", str(tmp_path / "a.gguf"), "--type", "bf16"]
    assert main(["export", "gguf", *arguments]) == 0
    assert "21 tensors" in capsys.readouterr().out
    back = str(tmp_path / "back")
    assert main(["import", "gguf", str(tmp_path / "a.gguf"), "--output-dir", back, "--dtype", "float16"]) == 0
    assert "as float16" in capsys.readouterr().out
    with CheckpointReader(tmp_path / "back") as reader:
        assert {tensor.dtype for tensor in reader.tensors.values()} == {"F16"}
