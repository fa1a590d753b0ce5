"""A batch: documents end to end, positions from 0 in each, and no document predicts the next."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.train.conftest import TEMPLATE, make_records, write_records
from vicuna.conversation import IGNORE_INDEX, get_template
from vicuna.train.batches.dataset import MIN_SHARED, Batch, ConversationDataset
from vicuna.train.batches.packing import PackedEpochs, Row
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.planner.workload import count_workload

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
    for item, labels in zip(ITEMS, batch.labels.split(batch.documents.lengths), strict=True):
        start = sum(tokens.lengths[:item])
        ids = tokens.input_ids[start : start + len(labels)].tolist()
        learned = tokens.is_supervised[start : start + len(labels)].tolist()
        expected = [token if is_supervised else IGNORE_INDEX for token, is_supervised in zip(ids, learned, strict=True)]
        assert labels.tolist() == [*expected[1:], IGNORE_INDEX]
    assert batch.num_supervised == int((batch.labels != IGNORE_INDEX).sum())


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


SYSTEM = "You are the one assistant of this whole test, and you say what is asked of you."
OTHER = "Here another assistant speaks, who has been told quite other things about it."


@pytest.fixture
def with_prompts(tiny_model: Path, tmp_path: Path) -> ConversationDataset:
    """Eight records with two system prompts by turns."""
    records = make_records(8, seed=3)
    for number, record in enumerate(records):
        record["messages"].insert(0, {"role": "system", "content": (SYSTEM, OTHER)[number % 2]})
    path = write_records(tmp_path / "prompts.jsonl", records)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenize_files([path], get_template(TEMPLATE), tokenizer, max_length=2048)
    return ConversationDataset(tokens, torch.device("cpu"), share_prefix=True)


def whole_documents(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """(token, position, target) of each document, what it shares put before it again."""
    columns = list(zip(batch.input_ids[0].tolist(), batch.position_ids[0].tolist(), batch.labels.tolist(), strict=True))
    return [columns[shared] + columns[own] for shared, own in batch.documents.keys]


def test_documents_that_begin_alike_share_it_and_are_otherwise_the_same(with_prompts: ConversationDataset) -> None:
    plain = ConversationDataset(with_prompts.conversations, torch.device("cpu"))
    batch, separate = with_prompts.batch([(0, 1, 2), (3, 4)]), plain.batch([(0, 2, 4), (1, 3)])
    assert batch.ids == separate.ids == ("record-0", "record-2", "record-4", "record-1", "record-3")
    first, second, third, fourth, fifth = batch.documents.shared
    assert first == fourth == 0 and second == third >= MIN_SHARED and fifth >= MIN_SHARED
    assert sum(batch.documents.lengths) == batch.input_ids.numel() < separate.input_ids.numel()
    assert whole_documents(batch) == whole_documents(separate)
    assert batch.num_supervised == separate.num_supervised == int((batch.labels != IGNORE_INDEX).sum())
    assert with_prompts.lengths([(0, 1, 2), (3, 4)]) == list(
        zip(batch.documents.lengths, batch.documents.shared, strict=True)
    )


def test_what_is_shared_ends_where_learning_begins(with_prompts: ConversationDataset) -> None:
    twins = with_prompts.batch([(0, 0)])  # the same conversation twice: all of it is alike
    learned = with_prompts.conversations.is_supervised[: with_prompts.conversations.lengths[0]]
    assert twins.documents.shared == (0, int(learned.long().argmax()) - 1)
    assert twins.num_supervised == 2 * int(learned.sum())
    one, other = whole_documents(twins)
    assert one == other


def test_one_that_begins_otherwise_takes_nothing_from_the_others(tiny_model: Path, tmp_path: Path) -> None:
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


def test_a_short_beginning_in_common_is_not_shared(with_prompts: ConversationDataset) -> None:
    batch = with_prompts.batch([(0, 1)])
    assert batch.documents.shared == (0, 0)
    assert batch.input_ids.numel() == with_prompts.num_tokens([(0, 1)])


def test_runs_are_where_the_supervised_targets_are(dataset: ConversationDataset) -> None:
    batch = dataset.batch(ROWS)
    assert batch.supervised_spans is not None
    places = [place for run in batch.supervised_spans for place in range(run.start, run.stop)]
    assert places == (batch.labels != IGNORE_INDEX).nonzero().squeeze(1).tolist()


def test_the_largest_micro_batch_is_the_largest_that_is_computed(with_prompts: ConversationDataset) -> None:
    """A row whose documents share much is long in tokens and short in what is computed."""
    lengths = with_prompts.conversations.lengths
    rows = [(0, 2, 4), (1, 6)]
    assert with_prompts.num_tokens(rows[:1]) > with_prompts.num_tokens(rows[1:])
    plan = PackedEpochs(lengths, sum(lengths), 2, seed=0)
    plan._steps, plan.steps_per_epoch = [rows], 1
    computed = [with_prompts.batch([row]).input_ids.numel() for row in rows]
    assert computed[0] < computed[1]
    workload = count_workload(with_prompts, plan, 1)
    assert sum(workload.lengths) == max(computed)
    assert workload.num_computed == sum(computed) < workload.num_tokens
    assert sum(count_workload(with_prompts, plan, 2).lengths) >= with_prompts.batch(rows).input_ids.numel()
