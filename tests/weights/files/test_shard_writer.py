"""Shards written tensor by tensor, and the hashes of what was written."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vicuna.io.log import Progress
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.manifest import TensorRecord
from vicuna.weights.files.shard_writer import (
    SAMPLE_BYTES,
    Digests,
    ShardWriter,
    TensorDigest,
    read_region,
    sample_spans,
)
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.files.unfinished import resumable_directory

DATA = {"a": bytes(range(200)) * 2, "b": b"x" * 100, "c": b"", "d": b"yz" * 40}


def test_shards_and_hashes(tmp_path: Path) -> None:
    tensors = [Tensor(name, "U8", (len(data),)) for name, data in DATA.items()]
    shards, index = split_into_shards(tensors, max_shard_bytes=450)

    def data_of(tensor: Tensor) -> Iterator[bytes]:
        data = DATA[tensor.name]
        yield from (data[i : i + 33] for i in range(0, len(data), 33))

    def record_of(tensor: Tensor, digests: Digests) -> TensorRecord:
        return TensorRecord(tensor.name, digests.sha256, digests.quick_sha256)

    with resumable_directory(tmp_path / "out", {}) as unfinished, Progress(None, description="x", unit="B") as progress:
        records, file_hashes = ShardWriter(unfinished, progress, data_of, record_of).write(shards, index)
    with CheckpointReader(tmp_path / "out") as reader:
        assert {name: reader.read(name) for name in reader.tensors} == DATA
        assert [file.name for file in reader.files] == [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
        assert file_hashes == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in reader.files}
    assert [record.name for record in records] == list(DATA)
    assert [record.target_sha256 for record in records] == [hashlib.sha256(data).hexdigest() for data in DATA.values()]


@pytest.mark.parametrize("size", [0, 1, SAMPLE_BYTES * 4, SAMPLE_BYTES * 4 + 1, SAMPLE_BYTES * 100 + 7])
@pytest.mark.parametrize("chunk", [SAMPLE_BYTES - 1, 1 << 30])
def test_samples_are_hashed_as_the_bytes_pass(size: int, chunk: int) -> None:
    data = bytes(i * i % 251 for i in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    digest = TensorDigest(size)
    for start in range(0, size, chunk):
        digest.update(data[start : start + chunk])
    spans = sample_spans(size)
    assert spans[0][0] == 0 and spans[-1][1] == size
    expected = hashlib.sha256(b"".join(data[start:stop] for start, stop in spans)).hexdigest()
    assert digest.digests() == Digests(hashlib.sha256(data).hexdigest(), expected)


def test_a_region_ends_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        assert b"".join(read_region(file, 3, 4)) == b"3456"
        assert b"".join(read_region(file, 8, 100)) == b"89"
