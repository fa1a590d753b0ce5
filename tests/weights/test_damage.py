"""Every damaged byte of a delta, a base or a model is found and named."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import model_files, numbers, tuned, write_model
from vicuna.apply_delta import main as apply_main
from vicuna.errors import VerificationError
from vicuna.weights.__main__ import main as weights_main
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import Format, make_delta


def damaged(folder: Path, random: np.random.Generator) -> Iterator[str]:
    """One byte of one file after the other is wrong, each file by its size; gives the file's name meanwhile."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    while True:
        path = files[random.choice(len(files), p=sizes / sizes.sum())]
        good, place = path.read_bytes(), int(random.integers(0, path.stat().st_size))
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        yield path.name
        path.write_bytes(good)


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_every_damaged_byte_of_a_delta_is_found_and_named(
    tmp_path: Path, base: Path, target: Path, format: Format
) -> None:
    """Exit code 3, no model, and the name of the file or of a tensor in it."""
    make_delta(base, target, tmp_path / "delta", format=format)
    for name, _ in zip(damaged(tmp_path / "delta", np.random.default_rng(5)), range(200), strict=False):
        with pytest.raises(
            VerificationError, match=rf"tensor '[a-z_0-9.]+'|{re.escape(name)}|disagree about '[a-z.]+'"
        ):
            apply_delta(base, tmp_path / "delta", tmp_path / "again")
        assert not (tmp_path / "again").exists()
    shutil.rmtree(tmp_path / "delta")


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_every_damaged_number_of_a_base_is_found_and_named(
    tmp_path: Path, base: Path, target: Path, format: Format
) -> None:
    make_delta(base, target, tmp_path / "delta", format=format)
    path, random = base / "model.safetensors", np.random.default_rng(6)
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for place in random.integers(start, len(good), 200):
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        with pytest.raises(VerificationError, match=r"base is not this delta's base: tensor '[a-z_0-9.]+' differs"):
            apply_delta(base, tmp_path / "delta", tmp_path / "again")
    for place in random.integers(0, start, 100):  # the header: damage that reads as the same tensors does not matter
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        flags = ["--base", str(base), "--delta", str(tmp_path / "delta"), "--target", str(tmp_path / "again")]
        if apply_main(flags) == 0:
            assert model_files(tmp_path / "again") == model_files(target)
            shutil.rmtree(tmp_path / "again")


@pytest.mark.parametrize("shard_bytes", [1 << 30, 600])
def test_every_damaged_byte_of_a_target_is_found_and_named(
    tmp_path: Path, base: Path, shard_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    make_delta(base, write_model(tmp_path / "target", tuned(numbers(0)), shard_bytes=shard_bytes), tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "model")
    for name, _ in zip(damaged(tmp_path / "model", np.random.default_rng(7)), range(200), strict=False):
        assert weights_main(["verify", str(tmp_path / "model")]) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert name in said or "tensor '" in said, (name, said)
