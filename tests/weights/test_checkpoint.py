"""Reading checkpoints: what is right is read, what lies is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import SHAPES, numbers, to_bytes, write_model
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader
from vicuna.weights.files.detect import is_delta, kind_of, refuse_delta

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


def rewrite_header(path: Path, change: object) -> None:
    """Replace the header by `change(header)`, with its length set right."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()  # type: ignore[operator]
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


def lie(**changes: object) -> object:
    return lambda header: {**header, "model.norm.weight": {**header["model.norm.weight"], **changes}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lie(shape=[17]), r"should have 34 bytes, its offsets say 32"),
        (lie(dtype="F99"), r"has dtype 'F99'"),
        (lie(data_offsets=[-1, 31]), r"is not a dtype, a shape and two offsets"),
        (lie(data_offsets=[0, 32]), r"starts at byte"),
        (lie(shape=None), r"is not a dtype, a shape and two offsets"),
        (lambda header: [header], r"not a JSON object"),
        (lambda header: {name: entry for name, entry in header.items() if "norm" not in name}, r"starts at byte|holds"),
    ],
)
def test_a_lying_header_is_named(tmp_path: Path, change: object, message: str) -> None:
    model = write_model(tmp_path / "m", numbers(0))
    rewrite_header(model / WEIGHTS, change)
    with pytest.raises(VicunaError, match=message):
        CheckpointReader(model)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    model = write_model(tmp_path / "m", numbers(0))
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(VicunaError, match="damaged or not safetensors"):
        CheckpointReader(model)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/x.safetensors", "a/b.safetensors", ".x.safetensors", 7])
def test_an_index_cannot_leave_its_folder(tmp_path: Path, name: object) -> None:
    model = write_model(tmp_path / "m", numbers(0), shard_bytes=600)
    index = json.loads((model / INDEX_NAME).read_text())
    index["weight_map"]["model.norm.weight"] = name
    (model / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(VicunaError, match=r"no plain .safetensors file name"):
        CheckpointReader(model)


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
    with pytest.raises(VicunaError, match="does not exist"):
        CheckpointReader(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_an_additive_delta_is_told_from_a_model(tmp_path: Path, dtype: str) -> None:
    model = write_model(tmp_path / "m", numbers(0), dtype)
    difference = {name: values * np.float32(0.001) for name, values in numbers(1).items()}
    delta = write_model(tmp_path / "d", difference, dtype)
    assert kind_of(model) == "model"
    assert kind_of(delta) == "additive delta"
    assert is_delta(delta)
    assert not is_delta(tmp_path)
    refuse_delta(model)
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        refuse_delta(delta)


def test_bfloat16_of_the_builder() -> None:
    assert to_bytes(np.array([1.0], "<f4"), "BF16") == b"\x80\x3f"
