"""Damage in a delta's weights is named by tensor."""

from pathlib import Path

import pytest

from vicuna.errors import VerificationError
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.layout import read_delta
from vicuna.weights.files.manifest import WEIGHTS_NAME


def test_damage_in_the_weights_is_named_by_tensor(tmp_path: Path, base: Path, delta: Path) -> None:
    path = delta / WEIGHTS_NAME
    good = path.read_bytes()
    places = {tensor.name: tensor.offset + tensor.size_bytes - 1 for tensor in read_delta(delta).tensors}
    for name, place in places.items():
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(VerificationError, match=rf"tensor '{name}' of .*weights\.vdelta is damaged"):
            apply_delta(base, delta, tmp_path / "again")
    path.write_bytes(b"X" + good[1:])
    with pytest.raises(VerificationError, match=r"weights\.vdelta does not begin as a delta's weights do"):
        apply_delta(base, delta, tmp_path / "again")
