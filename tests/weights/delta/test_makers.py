"""What the makers write is what `layout` says: frames or corrections, 2 MiB each, one region for each tensor."""

from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.delta.layout import FRAME_BYTES, FRAME_HEADER, PREAMBLES, REGION_NAMES
from vicuna.weights.delta.make import FORMATS, Format, make_delta
from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.manifest import DELTA_MANIFEST, read_manifest

SHAPES: dict[str, tuple[int, ...]] = {
    "model.big.weight": (1200, 1000),
    "model.norm.weight": (16,),
    "own.weight": (3, 3),
}


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_regions_are_those_of_the_layout(tmp_path: Path, format: Format) -> None:
    base = write_model(tmp_path / "base", {n: v for n, v in numbers(0, SHAPES).items() if n != "own.weight"}, "F16")
    target = write_model(tmp_path / "target", tuned(numbers(0, SHAPES)), "F16")
    make_delta(base, target, tmp_path / "delta", format=format)
    data = (tmp_path / "delta" / REGION_NAMES[FORMATS[format]]).read_bytes()
    position = len(PREAMBLES[FORMATS[format]])
    assert data[:position] == PREAMBLES[FORMATS[format]]
    with CheckpointReader(target) as reader:
        for record in read_manifest(tmp_path / "delta" / DELTA_MANIFEST).tensors:
            assert record.offset == position
            has_frames = format == "exact" or record.base_name is not None
            for _ in range(0, reader.tensors[record.name].size_bytes if has_frames else 0, FRAME_BYTES):
                position += FRAME_HEADER.size + FRAME_HEADER.unpack_from(data, position)[1]
            assert record.offset + record.size_bytes == position
    assert position == len(data)


def test_an_additive_delta_holds_the_rounded_difference(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", numbers(0, SHAPES), "F32")
    target = write_model(tmp_path / "target", tuned(numbers(0, SHAPES)), "F32")
    make_delta(base, target, tmp_path / "delta", format="additive")
    with CheckpointReader(base) as one, CheckpointReader(target) as two, CheckpointReader(tmp_path / "delta") as delta:
        for name in two.tensors:
            numbers_of = [np.frombuffer(reader.read(name), "<f4") for reader in (two, one, delta)]
            assert (numbers_of[0] - numbers_of[1] == numbers_of[2]).all()
