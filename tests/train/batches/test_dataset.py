"""A batch: documents end to end, positions from 0 in each, and no document predicts the next."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from tests.train.builders import OTHER, SYSTEM, TEMPLATE, make_records, write_records
from vicuna.conversation import IGNORE_INDEX, get_template
from vicuna.train.batches.dataset import MIN_SHARED, Batch, ConversationDataset
from vicuna.train.batches.packing import Row
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.conversation_model import ConversationModel

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


def test_labels_are_the_supervised_next_tokens_of_the_same_document(dataset: ConversationDataset) -> None:
    tokens, batch = dataset.conversations, dataset.batch(ROWS)
    for item, labels in zip(ITEMS, batch.labels.split(batch.documents.lengths), strict=True):
        start = sum(tokens.lengths[:item])
        ids = tokens.input_ids[start : start + len(labels)].tolist()
        mask = tokens.is_supervised[start : start + len(labels)].tolist()
        expected = [token if is_supervised else IGNORE_INDEX for token, is_supervised in zip(ids, mask, strict=True)]
        assert labels.tolist() == [*expected[1:], IGNORE_INDEX]
    assert batch.num_supervised == int((batch.labels != IGNORE_INDEX).sum())


def test_rows_are_counted_without_their_batch(dataset: ConversationDataset) -> None:
    batch = dataset.batch(ROWS)
    assert dataset.num_tokens(ROWS) == batch.input_ids.numel()
    assert dataset.num_supervised(ROWS) == batch.num_supervised


def test_a_batch_without_rows_has_zero_gradients(dataset: ConversationDataset, model: ConversationModel) -> None:
    batch = dataset.batch([])
    assert batch.num_supervised == 0
    loss = model(batch)
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def whole_documents(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """(token, position, label) of each document, its shared prefix put before it again."""
    columns = list(zip(batch.input_ids[0].tolist(), batch.position_ids[0].tolist(), batch.labels.tolist(), strict=True))
    return [columns[shared] + columns[own] for shared, own in batch.documents.keys]


def test_documents_share_a_prefix_and_are_otherwise_the_same(
    dataset_with_prompts: ConversationDataset,
) -> None:
    plain = ConversationDataset(dataset_with_prompts.conversations, torch.device("cpu"))
    batch, separate = dataset_with_prompts.batch([(0, 1, 2), (3, 4)]), plain.batch([(0, 2, 4), (1, 3)])
    assert batch.ids == separate.ids == ("record-0", "record-2", "record-4", "record-1", "record-3")
    first, second, third, fourth, fifth = batch.documents.shared
    assert first == fourth == 0 and second == third >= MIN_SHARED and fifth >= MIN_SHARED
    assert sum(batch.documents.lengths) == batch.input_ids.numel() < separate.input_ids.numel()
    assert whole_documents(batch) == whole_documents(separate)
    assert batch.num_supervised == separate.num_supervised == int((batch.labels != IGNORE_INDEX).sum())
    assert dataset_with_prompts.lengths([(0, 1, 2), (3, 4)]) == list(
        zip(batch.documents.lengths, batch.documents.shared, strict=True)
    )


def test_a_shared_prefix_ends_before_the_first_label(dataset_with_prompts: ConversationDataset) -> None:
    twins = dataset_with_prompts.batch([(0, 0)])  # the same conversation twice: all of it is alike
    mask = dataset_with_prompts.conversations.is_supervised[: dataset_with_prompts.conversations.lengths[0]]
    assert twins.documents.shared == (0, int(mask.long().argmax()) - 1)
    assert twins.num_supervised == 2 * int(mask.sum())
    one, other = whole_documents(twins)
    assert one == other


def test_a_document_with_another_prefix_takes_nothing_from_the_others(tiny_model: Path, tmp_path: Path) -> None:
    records = make_records(6, seed=4)
    for record in records:
        record["messages"].insert(0, {"role": "system", "content": SYSTEM})
    records[3]["messages"][0]["content"] = SYSTEM[:60] + OTHER  # alike for more than the least that is shared
    path = write_records(tmp_path / "prompts.jsonl", records)
    tokens = tokenize_files([path], get_template(TEMPLATE), AutoTokenizer.from_pretrained(tiny_model), max_length=2048)
    dataset = ConversationDataset(tokens, torch.device("cpu"), share_prefix=True)

    def saved(row: Row) -> int:
        return sum(shared for _, shared in dataset.lengths([row]))

    assert 0 < saved((0, 3)) < saved((0, 1))
    assert saved((0, 1, 2, 4, 5)) >= 4 * saved((0, 1)) - 8
    assert saved((0, 1, 2, 3, 4, 5)) >= saved((0, 1, 2, 4, 5))


def test_a_short_common_prefix_is_not_shared(dataset_with_prompts: ConversationDataset) -> None:
    batch = dataset_with_prompts.batch([(0, 1)])
    assert batch.documents.shared == (0, 0)
    assert batch.input_ids.numel() == dataset_with_prompts.num_tokens([(0, 1)])


def test_spans_are_those_of_the_labels(dataset: ConversationDataset) -> None:
    batch = dataset.batch(ROWS)
    assert batch.supervised_spans is not None
    indices = [index for span in batch.supervised_spans for index in range(span.start, span.stop)]
    assert indices == (batch.labels != IGNORE_INDEX).nonzero().squeeze(1).tolist()
