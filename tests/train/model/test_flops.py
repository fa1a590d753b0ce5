"""The count of floating-point operations against torch's own counter."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.model import attention
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.flops import count_flops


def test_the_arithmetic_is_what_the_matrices_compute(
    model: ConversationModel, dataset: ConversationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "can_skip_queries", lambda *_: False)
    batch = replace(dataset.batch([(0, 1, 2)]), supervised_spans=None)  # as on a GPU
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(batch).backward()
    computed = counter.get_flop_counts()["Global"]
    products = sum(number for operation, number in computed.items() if "mm" in str(operation))
    flops = count_flops(model)
    assert flops.of(batch.input_ids.numel(), batch.num_supervised, 0) == products
    # Attention sees half of the pairs that the counter, which knows no causal mask, counts in the forward pass.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(batch)
    pairs = sum(number for operation, number in counter.get_flop_counts()["Global"].items() if "bmm" in str(operation))
    lengths = batch.documents.lengths
    assert flops.of(0, 0, sum(length**2 for length in lengths)) == 3 * pairs // 2
