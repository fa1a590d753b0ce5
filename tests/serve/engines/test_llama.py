"""The model of the native engine against transformers, and checkpoints that it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serve.engines.builders import KINDS, change_config, load, prompt
from vicuna.errors import VicunaError
from vicuna.serve.engines.llama import Batch, PrefillChunk


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, make_model: Callable[[str], tuple[Path, Any]]) -> None:
    folder, model = make_model(kind)
    engine = load(folder)
    ids = prompt(3, 90)
    expected = model(torch.tensor([ids])).logits[0].detach()
    read = Batch(ids[:50], [0] * 50, list(range(50)), 0, [PrefillChunk(0, 0, 50)], list(range(50)))
    more = Batch(ids[50:80], [0] * 30, list(range(50, 80)), 0, [PrefillChunk(0, 50, 30)], list(range(30)))
    ones = [Batch([ids[place]], [0], [place], 1, [], [0]) for place in range(80, 90)]
    logits = torch.cat([engine.model.forward(batch) for batch in (read, more, *ones)])
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    assert expected.std() > 0.5  # or the tolerance would mean nothing


def test_bfloat16_with_packed_weights_is_close(llama: tuple[Path, Any]) -> None:
    engine, exact, ids = load(llama[0], dtype="bfloat16"), load(llama[0]), prompt(3, 40)
    batch = Batch(ids, [0] * 40, list(range(40)), 0, [PrefillChunk(0, 0, 40)], list(range(40)))
    got, expected = engine.model.forward(batch), exact.model.forward(batch)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=-1).min() > 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "tensor 'model.layers.2.*' is not part"),
        ({"num_hidden_layers": 4}, "no tensor 'model.layers.3"),
        ({"hidden_size": 256}, r"embed_tokens.weight is \[\d+, \d+\], its config.json wants \[\d+, 256\]"),
        ({"vocab_size": 5}, r"embed_tokens.weight is \[\d+, \d+\], its config.json wants \[5, "),
        ({"intermediate_size": 8}, r"gate_proj.weight is .*, its config.json wants \[8, "),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_refused(
    llama: tuple[Path, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(VicunaError, match=message):
        load(change_config(llama[0], tmp_path, **changes))
