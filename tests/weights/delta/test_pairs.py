"""Tensors of the target and their base: vocabularies of other sizes, heads that were tied."""

from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import Format, make_delta
from vicuna.weights.files.checkpoint import CheckpointReader


@pytest.mark.parametrize("format", ["exact", "additive"])
@pytest.mark.parametrize("rows", [31, 35])
def test_a_vocabulary_that_grew_or_shrank(tmp_path: Path, format: Format, rows: int) -> None:
    base = write_model(tmp_path / "base", numbers(0))
    weights = tuned(numbers(0))
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = np.resize(weights[name], (rows, 16))
    target = write_model(tmp_path / "target", weights)
    summary = make_delta(base, target, tmp_path / "delta", format=format)
    assert summary.num_whole == 0
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_a_head_that_was_tied_is_the_difference_to_the_embedding(tmp_path: Path, format: Format) -> None:
    weights = {name: values for name, values in numbers(0).items() if name != "lm_head.weight"}
    base = write_model(tmp_path / "base", weights)
    untied = tuned({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    target = write_model(tmp_path / "target", untied)
    assert make_delta(base, target, tmp_path / "delta", format=format).num_whole == 0
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    with CheckpointReader(target) as one, CheckpointReader(tmp_path / "again") as two:
        assert all(one.read(name) == two.read(name) for name in one.tensors)
