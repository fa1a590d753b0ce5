"""A batch: documents end to end, positions from 0 in each, and no document predicts the next."""

import torch

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.dataset import ConversationDataset
from vicuna.train.model import ConversationModel

ROWS = [(3, 1), (0,), (2, 4)]
ITEMS = (3, 1, 0, 2, 4)


def test_documents_lie_end_to_end(dataset: ConversationDataset) -> None:
    tokens, batch = dataset.conversations, dataset.batch(ROWS)
    documents = batch.input_ids[0].split(batch.documents.lengths)
    for item, document in zip(ITEMS, documents, strict=True):
        start = sum(tokens.lengths[:item])
        assert torch.equal(document, tokens.input_ids[start : start + tokens.lengths[item]].long())
    assert batch.ids == tuple(f"record-{item}" for item in ITEMS)
    assert batch.documents.cu_seqlens.tolist()[-1] == batch.input_ids.shape[1]


def test_positions_begin_anew_in_each_document(dataset: ConversationDataset) -> None:
    batch = dataset.batch(ROWS)
    for positions in batch.position_ids[0].split(batch.documents.lengths):
        assert positions.tolist() == list(range(len(positions)))


def test_targets_are_the_learned_next_tokens_of_the_same_document(dataset: ConversationDataset) -> None:
    tokens, batch = dataset.conversations, dataset.batch(ROWS)
    for item, targets in zip(ITEMS, batch.targets.split(batch.documents.lengths), strict=True):
        start = sum(tokens.lengths[:item])
        ids = tokens.input_ids[start : start + len(targets)].tolist()
        learned = tokens.is_learned[start : start + len(targets)].tolist()
        expected = [token if is_learned else IGNORE_INDEX for token, is_learned in zip(ids, learned, strict=True)]
        assert targets.tolist() == [*expected[1:], IGNORE_INDEX]
    assert batch.num_supervised == int((batch.targets != IGNORE_INDEX).sum())


def test_what_rows_hold_is_known_without_looking_at_their_tokens(dataset: ConversationDataset) -> None:
    batch = dataset.batch(ROWS)
    assert dataset.num_tokens(ROWS) == batch.input_ids.numel()
    assert dataset.num_supervised(ROWS) == batch.num_supervised


def test_without_rows_a_batch_teaches_nothing(dataset: ConversationDataset, model: ConversationModel) -> None:
    batch = dataset.batch([])
    assert batch.num_supervised == 0
    loss = model(batch)
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())
