"""The largest micro-batch is the largest that is computed."""

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.packing import PackedEpochs
from vicuna.train.planner.workload import count_workload


def test_the_largest_micro_batch_is_the_largest_that_is_computed(dataset_with_prompts: ConversationDataset) -> None:
    """A row whose documents share much is long in tokens and short in what is computed."""
    lengths = dataset_with_prompts.conversations.lengths
    rows = [(0, 2, 4), (1, 6)]
    assert dataset_with_prompts.num_tokens(rows[:1]) > dataset_with_prompts.num_tokens(rows[1:])
    plan = PackedEpochs(lengths, sum(lengths), 2, seed=0)
    plan._steps, plan.steps_per_epoch = [rows], 1
    computed = [dataset_with_prompts.batch([row]).input_ids.numel() for row in rows]
    assert computed[0] < computed[1]
    workload = count_workload(dataset_with_prompts, plan, 1)
    assert sum(workload.lengths) == max(computed)
    assert workload.num_computed == sum(computed) < workload.num_tokens
    assert (
        sum(count_workload(dataset_with_prompts, plan, 2).lengths) >= dataset_with_prompts.batch(rows).input_ids.numel()
    )
