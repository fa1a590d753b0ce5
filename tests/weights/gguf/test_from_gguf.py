"""Importing GGUF files that are cut, damaged or contradict themselves."""

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.gguf.builders import byte_level, make_model, small_sentencepiece
from vicuna.errors import VicunaError
from vicuna.weights.gguf.container import ALIGNMENT, GGUFFile, Value, ValueType, array, string, uint32, write_gguf
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small whole model as a file's bytes."""
    folder = tmp_path_factory.mktemp("whole")
    model = make_model(
        folder / "model", small_sentencepiece(folder / "tokenizer"), num_hidden_layers=1, hidden_size=32,
        intermediate_size=32, rope_scaling={"rope_type": "linear", "factor": 2.0},
    )  # fmt: skip
    export_gguf(model, folder / "a.gguf", FILE_TYPES["q8_0"])
    return (folder / "a.gguf").read_bytes()


def attempt(tmp_path: Path, data: bytes) -> str | None:
    """What the import says of these bytes; None where it takes them."""
    path = tmp_path / "b.gguf"
    path.write_bytes(data)
    target = tmp_path / "back"
    try:
        import_gguf(path, target)
    except VicunaError as error:
        assert not target.exists()
        return str(error)
    for file in target.iterdir():
        file.unlink()
    target.rmdir()
    return None


def test_a_file_cut_anywhere_is_told(tmp_path: Path, whole: bytes) -> None:
    assert attempt(tmp_path, whole) is None
    places = {*range(0, 200), *range(200, len(whole), len(whole) // 150), len(whole) - ALIGNMENT}
    for size in sorted(places):
        said = attempt(tmp_path, whole[:size])
        assert said is not None and said.startswith(str(tmp_path / "b.gguf")) and "\n" not in said, size


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_changed_bytes_is_told_or_imported(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    """Whatever stands in the header: one message or a whole model, never another exception, never much memory."""
    changed = bytearray(whole)
    header = whole.index(b"blk.0.ffn_down.weight") + 400
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, header))
        piece = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([bytes(8), b"\xff" * 8, struct.pack("<Q", 2**62), struct.pack("<f", math.nan)]),
            )
        )
        changed[place : place + len(piece)] = piece
    attempt(tmp_path, bytes(changed[: len(whole)]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": string("falcon")}, "is a 'falcon' model, which is not converted"),
        ({"llama.block_count": uint32(3)}, "has no tensor blk.2.attn_norm.weight"),
        (
            {"llama.block_count": uint32(2**31 - 1)},
            "num_hidden_layers is 2147483647; it takes a whole number from 1 to 1,000",
        ),
        ({"llama.embedding_length": uint32(128)}, "should be .*by its metadata"),
        ({"llama.attention.head_count": uint32(0)}, "num_attention_heads is 0"),
        ({"llama.rope.dimension_count": uint32(2)}, "is not the head size"),
        ({"llama.expert_count": uint32(8)}, "is a mixture of experts"),
        ({"split.count": uint32(3)}, "one of several parts"),
        ({"tokenizer.ggml.model": string("t5")}, "has a tokenizer 't5'"),
        ({"tokenizer.ggml.tokens": array(ValueType.STRING, ["a", "a"])}, "one is there twice"),
        ({"tokenizer.ggml.tokens": array(ValueType.STRING, ["a", "b"])}, "2 tokens but [0-9]+ of token_type"),
        ({"tokenizer.ggml.tokens": uint32(1)}, "no usable tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": array(ValueType.STRING, ["a bc"])}, "the merge 'a bc' is not of two tokens"),
        ({"tokenizer.ggml.pre": string("kimi-k2")}, "cuts text with the pre-tokenizer 'kimi-k2'"),
        ({"llama.rope.scaling.type": string("longrope")}, "rope scaling 'longrope' is not converted"),
        ({"vicuna.rope_scaling": string('{"rope_type": "llama3"}')}, "rope scaling's factor is None"),
    ],
)
def test_metadata_that_contradict_the_file(tmp_path: Path, change: dict[str, Value], said: str) -> None:
    model = make_model(tmp_path / "model", byte_level(tmp_path / "tokenizer", "gpt-2", vocab_size=698))
    export_gguf(model, tmp_path / "a.gguf", FILE_TYPES["f16"])
    with GGUFFile(tmp_path / "a.gguf") as file:
        data = {name: file.read(name) for name in file.tensors}
        metadata = {**{key: guess(value) for key, value in file.metadata.items()}, **change}
        tensors = list(file.tensors.values())
    write_gguf(tmp_path / "b.gguf", metadata, tensors, lambda tensor: [data[tensor.name]])
    with pytest.raises(VicunaError, match=said):
        GGUFModel(tmp_path / "b.gguf")


def guess(value: Any) -> Value:
    """A value read, to be written again."""
    kinds = {bool: ValueType.BOOL, int: ValueType.INT32, float: ValueType.FLOAT32, str: ValueType.STRING}
    if isinstance(value, list):
        return array(kinds[type(value[0])], value)
    return Value(kinds[type(value)], value)
