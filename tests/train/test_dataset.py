"""A batch: documents end to end, positions from 0 in each, and no document predicts the next."""

import torch

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.dataset import ConversationDataset

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


def test_micro_batches_hold_all_rows_once(dataset: ConversationDataset) -> None:
    batches = dataset.micro_batches(ROWS, 2)
    assert [len(batch.ids) for batch in batches] == [3, 2]
    assert sum(batch.num_supervised for batch in batches) == dataset.batch(ROWS).num_supervised
