"""Manifests: what is written is read, and every other value is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.errors import VerificationError, VicunaError
from vicuna.weights.files.manifest import (
    DELTA_MANIFEST,
    EXACT,
    NO_HASH,
    TensorRecord,
    is_copied_verbatim,
    noted_record,
    read_manifest,
)


@pytest.fixture
def path(delta: Path) -> Path:
    return delta / DELTA_MANIFEST


def rewrite(path: Path, change: Any) -> None:
    """Change the manifest and give it its hash again."""
    value = json.loads(path.read_text())
    change(value)
    text = json.dumps({**value, "manifest_sha256": NO_HASH})
    path.write_text(text.replace(NO_HASH, hashlib.sha256(text.encode()).hexdigest(), 1))


def test_what_is_written_is_read(path: Path, tmp_path: Path) -> None:
    manifest = read_manifest(path)
    assert manifest.format == EXACT and isinstance(manifest.tensors[0], TensorRecord)
    manifest.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert read_manifest(tmp_path / "again.json") == manifest


def test_the_targets_shards_are_those_of_the_headers(path: Path) -> None:
    manifest = read_manifest(path)
    (shard,) = manifest.target_shards()
    assert shard.file_name == "model.safetensors"
    assert [tensor.name for tensor in shard.tensors] == [record.name for record in manifest.tensors]


def test_a_changed_character_is_found(path: Path) -> None:
    path.write_text(path.read_text().replace("16", "17", 1))
    with pytest.raises(VerificationError, match="it does not have its own hash"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["tensors"][0].update(target_sha256="x"), "bad hash 'x'"),
        (lambda v: v["tensors"][0].update(offset=-1), "bad place of"),
        (lambda v: v["tensors"][0].update(offset=10**30), "bad place of"),
        (lambda v: v.update(target_vocab_size=10**30), "bad vocabulary size"),
        (lambda v: v.update(tool="x" * 2_000), "bad text: 2,000 characters, 1,000 are taken"),
        (lambda v: v.update(sources={"base": {"id": "x" * 2_000}}), "bad source: it is too long"),
        (lambda v: v.update(index="text"), "its index:1:1: not JSON"),
        (lambda v: v.update(index='{"weight_map": {"a": "../../x.safetensors"}}'), "bad index: it names other files"),
        (lambda v: v.update(index="[" * 100_000), "its index: not JSON|its index:1"),
        (lambda v: v["tensors"][0].update(base_dtype=None), "bad base of"),
        (lambda v: v["tensors"][0].update(base_shape=[1, 2]), "bad base of"),
        (lambda v: v["tensors"].reverse(), "bad order of tensors"),
        (lambda v: v["shards"][0].update(file="../evil.safetensors"), "no plain .safetensors file name"),
        (lambda v: v["files"].update({"model.py": "1" * 64}), "bad file name 'model.py'"),
        (lambda v: v.update(template=3), "bad text"),
        (lambda v: v.update(target_vocab_size="many"), "bad vocabulary size"),
        (lambda v: v.update(weights_sha256=None), "bad hash of the weights"),
        (lambda v: v.update(format="vicuna other delta"), "it is of another format"),
        (lambda v: v.update(extra=1), "damaged or no manifest"),
    ],
)
def test_values_that_cannot_be_are_refused(path: Path, change: Any, said: str) -> None:
    rewrite(path, change)
    with pytest.raises(VerificationError, match=said):
        read_manifest(path)


@pytest.mark.parametrize(("version", "way_out"), [(1, "make the delta again"), (3, "upgrade vicuna")])
def test_another_version_says_the_way_out(path: Path, version: int, way_out: str) -> None:
    rewrite(path, lambda value: value.update(version=version))
    with pytest.raises(VicunaError, match=f"has version {version}, this vicuna reads 2; {way_out}"):
        read_manifest(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "LICENSE", "chat template.txt"])
def test_small_files_are_copied(name: str) -> None:
    assert is_copied_verbatim(name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.BIN", "x.py", "../a", "a/b", ".hidden", "", "SHA256SUMS", None])
def test_weights_code_and_paths_are_not(name: object) -> None:
    assert not is_copied_verbatim(name)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": "x"},
        {"size_bytes": 10**30},
        {"target_sha256": 1},
        {"unknown": 1},
        {"base_shape": 7},
        {"base_shape": ["x"]},
    ],
)
def test_a_journals_record_that_was_not_written_there_is_none(change: dict[str, Any]) -> None:
    record = {"name": "a", "target_sha256": NO_HASH, "quick_sha256": NO_HASH}
    assert noted_record(record) is not None
    assert noted_record({**record, **change}) is None
