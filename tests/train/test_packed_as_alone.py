"""A conversation in a full row gives what it gives alone: logits, the loss of every token, gradients; nothing leaks."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.train.builders import make_records, write_records
from vicuna.conversation import IGNORE_INDEX, get_template, load_tokenizer
from vicuna.train.batches.dataset import Batch, ConversationDataset
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.conversation_model import ConversationModel, load_model, read_config
from vicuna.weights.small_model import find_small_model

CPU = torch.device("cpu")


def logits(model: ConversationModel, batch: Batch) -> torch.Tensor:
    return model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T  # (T, V)


def token_losses(model: ConversationModel, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(logits(model, batch), batch.labels, ignore_index=IGNORE_INDEX, reduction="none")


def gradients(model: ConversationModel, batches: list[Batch]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    num_supervised = sum(batch.num_supervised for batch in batches)
    for batch in batches:
        (model(batch) / num_supervised).backward()
    return {name: weight.grad.clone() for name, weight in model.named_weights().items() if weight.grad is not None}


def check_packed_equals_unpacked(
    model: ConversationModel, dataset: ConversationDataset, items: tuple[int, ...]
) -> None:
    packed, alone = dataset.batch([items]), [dataset.batch([(item,)]) for item in items]
    with torch.no_grad():
        together, apart = logits(model, packed), torch.cat([logits(model, batch) for batch in alone])
        assert ((together - apart).abs().max() / apart.abs().max()).item() < 1e-5
        losses = torch.cat([token_losses(model, batch) for batch in alone])
        torch.testing.assert_close(token_losses(model, packed), losses, rtol=1e-5, atol=1e-5)
        assert (losses > 0).sum() == packed.num_supervised
    expected = gradients(model, alone)
    for name, gradient in gradients(model, [packed]).items():
        assert ((gradient - expected[name]).norm() / expected[name].norm()).item() < 1e-4, name


def check_nothing_leaks(model: ConversationModel, dataset: ConversationDataset, items: tuple[int, ...]) -> None:
    """Other words in the first document: its own logits change, those of the others do not, to the bit."""
    batch = dataset.batch([items])
    size = batch.documents.lengths[0]
    with torch.no_grad():
        before = logits(model, batch)
        batch.input_ids[0, : size - 1] = batch.input_ids[0, : size - 1].flip(0)
        after = logits(model, batch)
    assert torch.equal(before[size:], after[size:])
    assert not torch.allclose(before[:size], after[:size], atol=1e-2)


def test_a_tiny_model(model: ConversationModel, dataset: ConversationDataset) -> None:
    check_packed_equals_unpacked(model, dataset, (3, 1, 0, 5))
    check_nothing_leaks(model, dataset, (3, 1, 0, 5))


@pytest.mark.slow
def test_the_real_model(tmp_path: Path) -> None:
    path = find_small_model()
    data = write_records(tmp_path / "records.jsonl", make_records(6, seed=3))
    tokens = tokenize_files([data], get_template("chatml"), load_tokenizer(path), max_length=512)
    dataset, model = ConversationDataset(tokens, CPU), load_model(path, read_config(path), CPU)
    check_packed_equals_unpacked(model, dataset, (2, 0, 4, 1))
    check_nothing_leaks(model, dataset, (2, 0, 4, 1))
