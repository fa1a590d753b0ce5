"""A whole model folder: weights, changed configuration, further files, manifest."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.builders import numbers, write_model
from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.manifest import MODEL, MODEL_MANIFEST, read_manifest
from vicuna.weights.files.new_model import NewModel, change_config, read_config
from vicuna.weights.files.new_model import write_model as write_new_model
from vicuna.weights.files.other_files import other_files
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.tools.verify import verify_model


def test_folder_and_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_model(tmp_path / "source", numbers(0), "F32")
    with CheckpointReader(source) as reader:

        def data_of(tensor: Tensor) -> Iterator[bytes]:
            return reader.chunks(tensor.name)

        shards, index = split_into_shards(reader.tensors.values(), max_shard_bytes=2000)
        new = NewModel(
            shards,
            index,
            data_of,
            other_files(source),
            config={"vocab_size": 7, "model_type": "llama"},
            texts={"tokenizer.json": "replaced", "note.txt": "new"},
            sources={"model": {"id": "owner/name", "revision": "a" * 40}},
        )
        write_new_model(new, tmp_path / "out", {}, description="testing", resume=True)
    manifest = read_manifest(tmp_path / "out" / MODEL_MANIFEST)
    assert (manifest.format, manifest.target_vocab_size) == (MODEL, 7)
    assert manifest.sources == {"model": {"id": "owner/name", "revision": "a" * 40}}
    assert sorted(manifest.files) == ["config.json", "note.txt", "tokenizer.json"]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "replaced"
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"model_type": "llama", "vocab_size": 7}
    assert "config.json: vocab_size is 7 now, it was 33" in capsys.readouterr().err
    assert verify_model(tmp_path / "out", manifest, is_own=True).num_tensors == 5


def test_a_configuration_that_changes_nothing_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a":   1}')
    change_config(path, {"a": 1})
    assert path.read_text() == '{"a":   1}'
    change_config(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


def test_reading_a_configuration(tmp_path: Path) -> None:
    assert read_config(tmp_path) == {}
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(VicunaError, match="holds a list, not a JSON object"):
        read_config(tmp_path)
