"""The held-out loss: a mean over supervised tokens, however they lie in rows; none after a stop signal."""

import math
import os
import signal

import pytest
import torch

from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.ranks import Ranks
from vicuna.train.signals import StopSignal
from vicuna.train.watch.evaluate import evaluate

ROWS = [(0, 1), (2,), (3, 4, 5)]


def test_the_loss_is_a_mean_over_supervised_tokens(model: ConversationModel, dataset: ConversationDataset) -> None:
    evaluation = evaluate(model, dataset, ROWS, StopSignal(), Ranks())
    assert evaluation is not None
    with torch.no_grad():
        sums = [model(dataset.batch([(item,)])).item() for item in range(6)]
    assert evaluation.num_supervised == dataset.num_supervised(ROWS)
    assert evaluation.loss == pytest.approx(sum(sums) / evaluation.num_supervised, rel=1e-5)
    assert evaluation.perplexity == pytest.approx(math.exp(evaluation.loss))
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_a_stop_signal_ends_an_evaluation(model: ConversationModel, dataset: ConversationDataset) -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert evaluate(model, dataset, ROWS, stop, Ranks()) is None
    assert stop.agreed == signal.SIGTERM
