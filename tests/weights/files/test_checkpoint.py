"""Checkpoints: what was written is read, and an index that disagrees with its shards is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.builders import SHAPES, numbers, write_model
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader

torch = pytest.importorskip("torch")


WIDE = torch.arange(70, dtype=torch.float32).reshape(7, 10)


def raw(value: Any) -> bytes:
    return bytes(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def save(folder: Path, state: Any, name: str = "pytorch_model.bin", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name, **options)
    return folder


def test_shards_by_index(tmp_path: Path) -> None:
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    save(tmp_path, {"a": WIDE}, names[0])
    save(tmp_path, {"b": WIDE + 1}, names[1])
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with CheckpointReader(tmp_path) as reader:
        assert reader.read("b") == raw(WIDE + 1)
        assert [shard.file_name for shard in reader.shards] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        assert json.loads(reader.index or b"")["weight_map"]["b"] == "model-00002-of-00002.safetensors"
    index["weight_map"]["b"] = "../elsewhere.bin"
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(VicunaError, match=r"no plain \.bin file name"):
        CheckpointReader(tmp_path)


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("shard_bytes", [1 << 30, 600])
def test_what_was_written_is_read(tmp_path: Path, shard_bytes: int) -> None:
    model = write_model(tmp_path / "m", numbers(0), "F32", shard_bytes)
    with CheckpointReader(model) as reader:
        assert {name: tensor.shape for name, tensor in reader.tensors.items()} == SHAPES
        for name, values in numbers(0).items():
            assert reader.read(name) == values.tobytes()
            assert b"".join(reader.chunks(name, 100)) == values.tobytes()
            assert reader.read(name, 8, 4) == values.tobytes()[8:12]


def test_other_libraries_read_it_too(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    model = write_model(tmp_path / "m", numbers(0), "F32")
    loaded = safetensors.load_file(model / WEIGHTS)
    assert all(np.array_equal(loaded[name], values) for name, values in numbers(0).items())


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", numbers(0), shard_bytes=600)
    index = json.loads((model / INDEX_NAME).read_text())
    del index["weight_map"]["model.norm.weight"]
    (model / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(VicunaError, match=r"disagree about tensor 'model.norm.weight'"):
        CheckpointReader(model)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", numbers(0), shard_bytes=600)
    next(model.glob("model-00002-of-*")).unlink()
    with pytest.raises(VicunaError, match=r"model-00002-of-.* is missing"):
        CheckpointReader(model)


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match=r"has none of model\.safetensors\.index\.json"):
        CheckpointReader(tmp_path)
    with pytest.raises(VicunaError, match="nowhere: no such folder"):
        CheckpointReader(tmp_path / "nowhere")
