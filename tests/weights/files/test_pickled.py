"""`.bin` files: read as PyTorch reads them; damaged ones are refused."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import CheckpointReader

torch = pytest.importorskip("torch")


WIDE = torch.arange(70, dtype=torch.float32).reshape(7, 10)


STATE = {
    "half": WIDE.half(),
    "bfloat": WIDE.bfloat16(),
    "transposed": WIDE.t(),
    "slice": WIDE[1:5, 2:7],
    "part": WIDE[2:4],
    "parameter": torch.nn.Parameter(torch.ones(3)),
    "integers": torch.arange(5),
    "flag": torch.tensor(True),
    "empty": torch.zeros(0, 4),
    "tied": WIDE,
    "again": WIDE,
    "double": WIDE.double(),
}


def raw(value: Any) -> bytes:
    return bytes(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def save(folder: Path, state: Any, name: str = "pytorch_model.bin", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name, **options)
    return folder


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}]
)
def test_every_tensor_has_pytorchs_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    with CheckpointReader(save(tmp_path / "m", STATE, **options)) as reader:
        assert reader.is_pickled
        assert list(reader.tensors) == list(STATE)
        for name, value in STATE.items():
            assert reader.tensors[name].shape == tuple(value.shape)
            assert reader.read(name) == raw(value), name
            assert b"".join(reader.chunks(name, 12)) == raw(value), name
            assert reader.read(name, 3, 5) == raw(value)[3:8], name
        assert reader.aliases == {"again": "tied"}


def test_newer_dtypes_and_module_versions(tmp_path: Path) -> None:
    state = torch.nn.LayerNorm(4).state_dict()
    state["small"] = WIDE.to(torch.float8_e4m3fn)
    state["unsigned"] = torch.ones(3, dtype=torch.uint16)
    with CheckpointReader(save(tmp_path / "m", state)) as reader:
        assert [reader.tensors[name].dtype for name in ("small", "unsigned")] == ["F8_E4M3", "U16"]
        assert all(reader.read(name) == raw(value) for name, value in state.items())


def rebuilt(path: Path, change: Any) -> None:
    """The same archive with other entries: `change` is given {name: data}."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update({"pytorch_model/data/0": b"short"}), "reaches beyond the 5 bytes of its storage"),
        (lambda e: e.pop("pytorch_model/data/0"), "damaged"),
        (lambda e: e.update({"pytorch_model/byteorder": b"big"}), "big-endian"),
        (lambda e: e.update({"second/data.pkl": b""}), "2 entries data.pkl"),
        (lambda e: e.update({"pytorch_model/data.pkl": e["pytorch_model/data.pkl"][:40]}), "damaged"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = save(tmp_path / "m", {"w": WIDE})
    rebuilt(folder / "pytorch_model.bin", change)
    with pytest.raises(VicunaError, match=message):
        CheckpointReader(folder)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_any_damage_ends_in_one_line_or_right_sizes(tmp_path: Path, options: dict[str, Any]) -> None:
    """Whatever byte is wrong, reading ends in an error of ours or in tensors that lie inside the file."""
    path = save(tmp_path / "m", {name: STATE[name] for name in ("half", "slice", "integers")}, **options)
    file = path / "pytorch_model.bin"
    good, random = file.read_bytes(), np.random.default_rng(0)
    for place in random.integers(0, len(good), 300):
        file.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        try:
            with CheckpointReader(path) as reader:
                assert all(len(reader.read(name)) == tensor.size_bytes for name, tensor in reader.tensors.items())
        except VicunaError:
            pass
    for size in range(0, len(good), 97):
        file.write_bytes(good[:size])
        with pytest.raises(VicunaError, match=r"pytorch_model\.bin"):
            CheckpointReader(path)
