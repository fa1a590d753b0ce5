"""Exporting models: what does not fit is named, and no file is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.builders import to_bytes, wait_until
from tests.weights.gguf.builders import make_model, same_weights, small_sentencepiece
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.gguf import quantize as quantize_module
from vicuna.weights.gguf import to_gguf as to_gguf_module
from vicuna.weights.gguf.check import check_gguf
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES, GGMLType


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
    with pytest.raises(VicunaError, match=r"q4_k, q6_k needs llama.cpp's code.*pip install 'vicuna-kit\[export\]'"):
        export_gguf(folder, tmp_path / "k.gguf", FILE_TYPES["q4_k_m"])
    monkeypatch.setattr("vicuna.weights.gguf.check.is_installed", lambda: False)
    report = check_gguf(folder, tmp_path / "numpy.gguf")
    assert report.engine == "transformers, read back from the file" and not report.mismatches
    assert report.agreement.mean_kl < 0.01


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
    wait_until(lambda: process.poll() is not None or bool(list(tmp_path.glob(".a.gguf.*.tmp"))))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists() or GGUFModel(output)
    subprocess.run([*command, "--type", "q8_0", "--overwrite"], check=True, capture_output=True)
    assert GGUFModel(output).shape.num_layers == 40
