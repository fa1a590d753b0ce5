"""Activation checkpointing keeps less and changes nothing; a compiled layer computes the same to rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.builders import MakeOptions, losses, weights
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.loop import train
from vicuna.train.model.activation import checkpoint_layers, compile_layers
from vicuna.train.model.conversation_model import ConversationModel, load_model, read_config


class Products(TorchDispatchMode):  # type: ignore[misc]
    """Counts matrix products that are really computed (answers from what was saved do not come down to it)."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def saved_bytes(model: ConversationModel, dataset: ConversationDataset) -> int:
    """What one forward pass keeps for the backward pass."""
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    before = {weight.data_ptr() for weight in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(dataset.batch([(0, 1, 2, 3)]))
    assert before == {weight.data_ptr() for weight in model.parameters()}
    return sum(sizes)


def test_full_checkpointing_keeps_less_between_the_passes(tiny_model: Path, dataset: ConversationDataset) -> None:
    kept = {}
    for kind in ("none", "full"):
        model = load_model(tiny_model, read_config(tiny_model), torch.device("cpu"))
        checkpoint_layers(model, kind)
        kept[kind] = saved_bytes(model, dataset)
    assert kept["full"] < 0.5 * kept["none"]


@pytest.mark.parametrize("kind", ["selective", "full"])
@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_computed_again_is_the_same_to_the_bit(
    make_options: MakeOptions, tmp_path: Path, kind: str, bf16: bool
) -> None:
    results = []
    for setting in ("none", kind):
        options = make_options(output_dir=tmp_path / setting, activation_checkpointing=setting, bf16=bf16, save_steps=0)
        train(options)
        results.append((losses(options), weights(options)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(weight, results[1][1][name]) for name, weight in results[0][1].items())


def test_selective_checkpointing_computes_no_matrix_product_again(
    tiny_model: Path, dataset: ConversationDataset
) -> None:
    def products(kind: str) -> int:
        model = load_model(tiny_model, read_config(tiny_model), torch.device("cpu"))
        checkpoint_layers(model, kind)
        loss = model(dataset.batch([(0,)]))
        with Products() as counted:
            loss.backward()
        return int(counted.number)

    none = products("none")
    assert products("selective") == none
    assert products("full") == none + 2 * 6  # two layers; the last of seven matrices is needed by nothing in its layer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "full"])
def test_a_compiled_layer_computes_the_same(tiny_model: Path, dataset: ConversationDataset, kind: str) -> None:
    counts: list[int] = []  # of graphs, after each batch

    def gradients(is_compiled: bool) -> list[Any]:
        model = load_model(tiny_model, read_config(tiny_model), torch.device("cpu"))
        if is_compiled:
            compile_layers(model)
        checkpoint_layers(model, kind)
        for rows in ([(0,)], [(1, 2)], [(3, 4, 5)], [(6, 7)]):  # other lengths and documents
            model(dataset.batch(rows)).backward()
            counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return [weight.grad for weight in model.parameters()]

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for eager, compiled in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-4)
    assert 0 < counts[-4] == counts[-1], counts  # the first batch has compiled all
