"""`vicuna weights cast`: other numbers, other files, the same model."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import numbers, to_bytes, write_model
from vicuna.errors import VicunaError
from vicuna.weights.__main__ import main as weights_main
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader
from vicuna.weights.tools.cast import cast_model


def test_fp32_becomes_bf16_and_the_config_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    model = write_model(tmp_path / "m", numbers(0), "F32", shard_bytes=600)
    flags = ["cast", str(model), "--target", str(tmp_path / "c"), "--dtype", "bfloat16", "--json"]
    assert weights_main(flags) == 0
    assert list(json.loads(capsys.readouterr().out)["sha256"]) == ["model.safetensors"]
    with CheckpointReader(tmp_path / "c") as reader:
        for name, values in numbers(0).items():
            expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().tobytes()
            assert (reader.tensors[name].dtype, reader.read(name)) == ("BF16", expected)
    assert json.loads((tmp_path / "c" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert weights_main(["verify", str(tmp_path / "c")]) == 0


def test_bin_becomes_safetensors_and_tied_weights_are_written_once(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    embedding = torch.randn(33, 16)
    state = {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(16), "lm_head.weight": embedding}
    for tied in (True, False):
        folder = tmp_path / str(tied)
        folder.mkdir()
        torch.save(state, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
        (folder / "tokenizer.json").write_text("{}")
        cast_model(folder, tmp_path / f"{tied}-cast")
        with CheckpointReader(tmp_path / f"{tied}-cast") as reader:
            assert ("lm_head.weight" in reader.tensors) != tied
            assert reader.read("model.embed_tokens.weight") == embedding.numpy().tobytes()
        assert (tmp_path / f"{tied}-cast" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_other_shards(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", numbers(0), "F32")
    cast_model(model, tmp_path / "c", max_shard_bytes=1200)
    assert len(list((tmp_path / "c").glob("model-*.safetensors"))) > 2
    assert (tmp_path / "c" / INDEX_NAME).is_file()
    with CheckpointReader(tmp_path / "c") as reader:
        assert all(reader.read(name) == values.tobytes() for name, values in numbers(0).items())


@pytest.mark.parametrize(("dtype", "name"), [("F16", "float32"), ("BF16", "float32")])
def test_up_and_down_again_is_the_same(tmp_path: Path, dtype: str, name: str) -> None:
    model = write_model(tmp_path / "m", numbers(0), dtype)
    cast_model(model, tmp_path / "up", dtype=name)  # type: ignore[arg-type]
    cast_model(tmp_path / "up", tmp_path / "down", dtype={"F16": "float16", "BF16": "bfloat16"}[dtype])  # type: ignore[arg-type]
    with CheckpointReader(tmp_path / "down") as reader:
        assert all(reader.read(each) == to_bytes(values, dtype) for each, values in numbers(0).items())


def test_a_delta_is_not_cast(tmp_path: Path) -> None:
    delta = write_model(tmp_path / "d", {name: values * np.float32(0.001) for name, values in numbers(1).items()})
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        cast_model(delta, tmp_path / "c")
