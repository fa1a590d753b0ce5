"""Safetensors headers: wrong and truncated ones are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.weights.builders import numbers, write_model
from vicuna.errors import VerificationError, VicunaError
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader
from vicuna.weights.files.tensors import parse_header

WEIGHTS = "model.safetensors"


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": [10**30], "data_offsets": [0, 2 * 10**30]}, "a number is at most"),
        ({"shape": [1] * 100_000, "data_offsets": [0, 2]}, "a shape has at most 64 numbers"),
        ({"shape": [2] * 2_500_000, "data_offsets": [0, 2]}, "a shape has at most 64 numbers"),
        ({"shape": [2**62] * 64, "data_offsets": [0, 2]}, "would have more than"),
        ({"shape": "1" * 1000, "data_offsets": [0, 0]}, "is not a dtype, a shape and two offsets"),
        ({"dtype": "Q" * 1_000_000, "shape": [0], "data_offsets": [0, 0]}, r"has dtype 'Q.*characters in all"),
    ],
)
def test_entries_of_no_bounded_cost_are_refused(entry: dict[str, Any], message: str) -> None:
    header = json.dumps({"a": {"dtype": "F16", **entry}}).encode()
    with pytest.raises(VerificationError, match=message) as caught:
        parse_header(header, None, "m.safetensors")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"' + b"a" * 5_000 + b'": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}', "is too long"),
        (b'{"a": [' + b"[]," * 4_000_000 + b"1]}", "values, and 8,000,000 are taken"),
        (b'{"a":' + b'{"b":1},' * 300_000 + b"}", "tensors, and 250,000 are taken"),
        (b'{"a":' + b"[" * 100_000, "is not JSON"),
        (b'{"a": {"dtype": "F16", "shape": [' + b"9" * 5_000 + b'], "data_offsets": [0, 2]}}', "is not JSON"),
    ],
)
def test_headers_of_no_bounded_cost_are_refused(header: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=message) as caught:
        parse_header(header, None, "m.safetensors")
    assert len(str(caught.value)) < 500
