"""Rows and steps: every conversation exactly once, no row too long, the same order for the same seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vicuna.train.batches.packing import PackedEpochs, deal, pack, pack_epoch

ROW = 64

lengths_lists = st.lists(st.integers(1, ROW), min_size=1, max_size=200)


@given(lengths_lists, st.integers(1, 9), st.integers(0, 10**6), st.integers(0, 5))
def test_an_epoch_has_every_conversation_once_in_rows_that_fit(
    lengths: list[int], rows_per_step: int, seed: int, epoch: int
) -> None:
    steps = pack_epoch(lengths, ROW, rows_per_step, seed=seed, epoch=epoch)
    rows = [row for step in steps for row in step]
    assert Counter(item for row in rows for item in row) == Counter(range(len(lengths)))
    assert all(sum(lengths[item] for item in row) <= ROW for row in rows)
    sizes = {len(step) for step in steps}
    assert max(sizes) <= rows_per_step
    assert max(sizes) - min(sizes) <= 1
    assert steps == pack_epoch(lengths, ROW, rows_per_step, seed=seed, epoch=epoch)


@given(lengths_lists, st.integers(0, 100))
def test_every_epoch_has_the_same_number_of_steps(lengths: list[int], seed: int) -> None:
    counts = {len(pack_epoch(lengths, ROW, 4, seed=seed, epoch=epoch)) for epoch in range(4)}
    assert len(counts) == 1


@given(lengths_lists, st.integers(1, 9), st.integers(0, 100))
def test_without_packing_each_has_a_row_and_the_longest_go_first(
    lengths: list[int], rows_per_step: int, seed: int
) -> None:
    steps = pack_epoch(lengths, ROW, rows_per_step, seed=seed, epoch=0, packing=False)
    rows = [row for step in steps for row in step]
    assert sorted(rows) == [(item,) for item in range(len(lengths))]
    for step in steps:
        assert [lengths[row[0]] for row in step] == sorted((lengths[row[0]] for row in step), reverse=True)
    assert lengths[steps[0][0][0]] == max(lengths)
    plan = PackedEpochs(lengths, ROW, rows_per_step, seed=seed, packing=False)
    assert plan.rows(0) == steps[0]
    assert (
        plan.rows(plan.steps_per_epoch + 0)
        == pack_epoch(lengths, ROW, rows_per_step, seed=seed, epoch=1, packing=False)[0]
    )


@given(lengths_lists)
def test_no_two_rows_could_be_one(lengths: list[int]) -> None:
    filled = sorted(sum(lengths[item] for item in row) for row in pack(lengths, ROW))
    assert len(filled) < 2 or filled[0] + filled[1] > ROW


def test_best_fit_takes_the_fullest_row_that_has_room() -> None:
    # 6 and 5 open two rows of 10; 4 fills the first exactly, 3 goes to the second, 2 fills it.
    assert [sorted(row) for row in pack([6, 5, 4, 3, 2], 10)] == [[0, 2], [1, 3, 4]]


def test_epochs_and_seeds_differ() -> None:
    lengths = [10, 20, 30, 40] * 10
    plans = {str(pack_epoch(lengths, ROW, 2, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(plans) == 4


def test_a_step_is_found_without_those_before_it() -> None:
    lengths = [7, 12, 33, 50, 64, 3, 9] * 5
    running = PackedEpochs(lengths, ROW, 3, seed=5)
    expected = [running.rows(step) for step in range(3 * running.steps_per_epoch)]
    for step in (2 * running.steps_per_epoch + 1, 1, running.steps_per_epoch):
        assert PackedEpochs(lengths, ROW, 3, seed=5).rows(step) == expected[step]


@pytest.mark.parametrize("count", [1_000, 70_000])
def test_rows_are_full(count: int) -> None:
    lengths = [1 + (index * 7919) % 2038 for index in range(count)]
    plan = PackedEpochs(lengths, 4096, 32, seed=0)
    assert plan.fill > 0.99


@given(lengths_lists, st.integers(1, 4), st.integers(1, 5))
def test_every_row_of_a_step_is_dealt_to_one_rank(lengths: list[int], rows_per_batch: int, num_ranks: int) -> None:
    rows = pack(lengths, ROW)
    hands = deal(rows, lengths, rows_per_batch, num_ranks)
    assert Counter(row for hand in hands for batch in hand for row in batch) == Counter(rows)
    assert {len(hand) for hand in hands} == {-(-len(rows) // (rows_per_batch * num_ranks))}
    assert all(len(batch) <= rows_per_batch for hand in hands for batch in hand)


def test_rows_that_are_computed_together_cost_alike() -> None:
    lengths = [8] * 8 + [4] * 16 + [1] * 64
    rows = (
        [(i,) for i in range(8)]
        + [(i, i + 1) for i in range(8, 24, 2)]
        + [tuple(range(i, i + 8)) for i in range(24, 88, 8)]
    )
    first, second = deal(rows, lengths, 2, 2)
    assert [sorted(len(row) for row in batch) for batch in first] == [sorted(len(row) for row in b) for b in second]
