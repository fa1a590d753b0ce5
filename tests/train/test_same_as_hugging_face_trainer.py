"""The same batches give the losses and weights that the Hugging Face Trainer gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from tests.train.builders import losses, make_records, weights, write_records
from vicuna.conversation import IGNORE_INDEX
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.prepare import prepare
from vicuna.train.ranks import Ranks

STEPS = 6

DOCUMENTS_PER_ROW = 2


class InOrder(Trainer):  # type: ignore[misc]
    """Reads the batches in the order given, and follows our learning rates."""

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(range(STEPS * 2 * DOCUMENTS_PER_ROW))


def pad(documents: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    fill = {"input_ids": 0, "labels": IGNORE_INDEX, "attention_mask": 0}
    return {
        name: torch.nn.utils.rnn.pad_sequence([doc[name] for doc in documents], True, value)
        for name, value in fill.items()
    }


def test_losses_and_weights_equal_those_of_the_hugging_face_trainer(
    make_options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    # Two documents fit into a row, three do not: so every row has two, like the Trainer's batches.
    records = [record for record in make_records(80, seed=4) if len(record["messages"]) == 2][: STEPS * 4]
    data = write_records(tmp_path / "records.jsonl", records)
    probe = prepare(make_options(data=(data,)), Ranks())
    lengths = probe.conversations.conversations.lengths
    row_length = 2 * max(lengths)
    assert 3 * min(lengths) > row_length
    assert len(lengths) == STEPS * 4
    options = make_options(
        data=(data,),
        max_length=max(lengths),
        row_length=row_length,
        max_steps=STEPS,
        gradient_accumulation_steps=2,
        save_steps=0,
        weight_decay=0.1,
    )
    train(options)

    run = prepare(options, Ranks())
    documents = [_document(run, item) for step in range(STEPS) for row in run.epochs.rows(step) for item in row]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        per_device_train_batch_size=DOCUMENTS_PER_ROW,
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = InOrder(model, arguments, data_collator=pad, train_dataset=documents)
    trainer.create_optimizer()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, run.schedule.at)
    trainer.train()

    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses(options) == pytest.approx(theirs, abs=6e-5)  # the Trainer logs four decimals
    for name, weight in weights(options).items():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-3, atol=2e-5)


def _document(run: Any, item: int) -> dict[str, torch.Tensor]:
    tokens = run.conversations.conversations
    end = sum(tokens.lengths[: item + 1])
    span = slice(end - tokens.lengths[item], end)
    input_ids = tokens.input_ids[span].long()
    labels = torch.where(tokens.is_supervised[span], input_ids, IGNORE_INDEX)
    return {"input_ids": input_ids, "labels": labels, "attention_mask": torch.ones_like(input_ids)}
