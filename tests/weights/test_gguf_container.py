"""The reader of GGUF files against files that lie, and the writer against other readers."""

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.gguf_models import byte_level, make_model, small_sentencepiece
from vicuna.errors import VicunaError
from vicuna.weights.gguf.container import (
    ALIGNMENT,
    STRUCT_FORMATS,
    GGUFFile,
    GGUFTensor,
    Value,
    ValueType,
    array,
    build_header,
    string,
    uint32,
    write_gguf,
)
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES, GGMLType

BOUNDS = {"b": 7, "B": 8, "h": 15, "H": 16, "i": 31, "I": 32, "q": 63, "Q": 64}


def scalars(kind: ValueType) -> st.SearchStrategy[Any]:
    if kind == ValueType.STRING:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    if kind == ValueType.BOOL:
        return st.booleans()
    code = STRUCT_FORMATS[kind]
    if code in "fd":
        return st.floats(width=32 if code == "f" else 64, allow_nan=False)
    bits = BOUNDS[code]
    return st.integers(-(2**bits) if code.islower() else 0, 2**bits - 1)


@st.composite
def values(draw: st.DrawFn) -> Value:
    kind = draw(st.sampled_from([kind for kind in ValueType if kind != ValueType.ARRAY]))
    if draw(st.booleans()):
        return Value(kind, draw(scalars(kind)))
    return array(kind, draw(st.lists(scalars(kind), max_size=5)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8), values()),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(list(GGMLType))), max_size=4),
)
def test_what_is_written_is_read(tmp_path: Path, metadata: dict[str, Value], plan: list[Any]) -> None:
    from gguf import GGUFReader

    tensors = [
        GGUFTensor(f"t{number}", kind, (rows, blocks * kind.block_size))
        for number, (rows, blocks, kind) in enumerate(plan)
    ]
    data = {tensor.name: bytes([number + 1]) * tensor.size_bytes for number, tensor in enumerate(tensors)}
    write_gguf(tmp_path / "a.gguf", metadata, tensors, lambda tensor: [data[tensor.name]], overwrite=True)
    with GGUFFile(tmp_path / "a.gguf") as file:
        assert file.metadata == {key: value.value for key, value in metadata.items()}
        assert [(t.name, t.type, t.shape) for t in file.tensors.values()] == [
            (t.name, t.type, t.shape) for t in tensors
        ]
        assert {name: file.read(name) for name in file.tensors} == data
    theirs = GGUFReader(tmp_path / "a.gguf")
    assert [tensor.data.tobytes() for tensor in theirs.tensors] == list(data.values())


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


HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it ends at byte 0"),
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "it is version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "it is big-endian"),
        (HEAD + struct.pack("<QQ", 2**60, 0), "claims 1152921504606846976 tensors"),
        (HEAD + struct.pack("<QQ", 0, 2**63), "metadata entries, more than"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**63) + bytes(64), "inside a key"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<I", 99) + bytes(64), "'k' is of type 99"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 0, 2**62), "claims 4611686018427387904"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1) + bytes(64), "a list of lists"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"\xff" + struct.pack("<IB", 0, 1) + bytes(64), "a key is not UTF-8"),
        (build_header({"a": uint32(1)}, [])[:-4] + bytes(4), None),
        (build_header({"general.alignment": uint32(3)}, []), "its alignment is 3"),
        (build_header({"general.alignment": string("x")}, []), "its alignment is 'x'"),
        (build_header({}, [GGUFTensor("a", GGMLType.F32, (4,)), GGUFTensor("a", GGMLType.F32, (4,))]), "there twice"),
        (build_header({}, [GGUFTensor("a" * 64, GGMLType.F32, (4,))]), "too long"),
        (build_header({}, [GGUFTensor("a", GGMLType.F32, (1,) * 5)]), "has 5 dimensions"),
        (build_header({}, [GGUFTensor("a", GGMLType.Q8_0, (2, 33))]) + bytes(900), "cut into blocks of 32"),
        (build_header({}, [GGUFTensor("a", GGMLType.F32, (2**40, 2**40))]), "would end at byte"),
        (build_header({}, [GGUFTensor("a", GGMLType.F32, (4,), 7)]) + bytes(900), "not a multiple of 32"),
        (
            build_header({}, [GGUFTensor("a", GGMLType.F32, (16,)), GGUFTensor("b", GGMLType.F32, (4,), 32)])
            + bytes(900),
            "tensor 'b' starts at byte 32, inside another",
        ),
    ],
)
def test_headers_that_lie(tmp_path: Path, data: bytes, said: str | None) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    if said is None:
        assert GGUFFile(path).metadata == {"a": 0}
        return
    with pytest.raises(VicunaError, match=said):
        GGUFFile(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": string("falcon")}, "is a 'falcon' model, which is not converted"),
        ({"llama.block_count": uint32(3)}, "has no tensor blk.2.attn_norm.weight"),
        ({"llama.block_count": uint32(2**31 - 1)}, "do not go together"),
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
