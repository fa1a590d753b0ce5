"""Pickle programs: nothing that they name is called, and what no state dict needs is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from vicuna.errors import VicunaError
from vicuna.weights.files.checkpoint import CheckpointReader

torch = pytest.importorskip("torch")


WIDE = torch.arange(70, dtype=torch.float32).reshape(7, 10)


def save(folder: Path, state: Any, name: str = "pytorch_model.bin", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name, **options)
    return folder


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_nothing_in_a_file_is_run(tmp_path: Path, options: dict[str, Any]) -> None:
    mark = tmp_path / "was-here"
    folder = save(tmp_path / "m", {"w": WIDE, "x": Evil(mark)}, **options)
    with pytest.raises(VicunaError, match=r"asks to call posix.mkdir, .* nothing was run; do not trust"):
        CheckpointReader(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil(mark)}, 2))
    with pytest.raises(VicunaError, match=r"pytorch_model.bin"):
        CheckpointReader(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (torch.nn.Linear(2, 2), "uses the pickle instruction NEWOBJ"),
        ({"model": {"w": WIDE}}, "holds a dict under 'model'"),
        ([WIDE], "holds a list instead of a dictionary"),
        ({"w\n": WIDE}, "characters that no model uses"),
        ({"w": WIDE.to_sparse()}, "asks to call torch.serialization._get_layout"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, state: Any, message: str) -> None:
    with pytest.raises(VicunaError, match=message):
        CheckpointReader(save(tmp_path / "m", state))


def test_values_that_hold_each_other_cost_nothing(tmp_path: Path) -> None:
    """A pickle of a few hundred bytes whose text would fill the memory."""
    value: Any = "x"
    for _ in range(60):
        value = [value, value, value]
    with pytest.raises(VicunaError, match="holds a list under 'w'"):
        CheckpointReader(save(tmp_path / "m", {"w": value}))
    with pytest.raises(VicunaError, match="damaged"):
        CheckpointReader(save(tmp_path / "m", {"w": WIDE, (1, 2): WIDE}))
