"""GGUF files: what is written is read, by other readers too, and headers that lie are refused."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vicuna.errors import VicunaError
from vicuna.weights.gguf.container import (
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
from vicuna.weights.gguf.types import GGMLType

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
