"""The training loop: the rows of a step, forward, backward, clip, update; log, evaluate, save.

The loss of a step is the sum over its supervised tokens divided by their number in the whole step, however the step is
cut into micro-batches: a mean of micro-batch means would weigh a token by how few neighbours it has (gradients 14-35%
off on ShareGPT-like conversations).

Before: `prepare`. After: `export`, which `train` calls when the last step is done.
"""

import math
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from vicuna import log, options
from vicuna.errors import VicunaError
from vicuna.train.activation import checkpoint_layers, compile_layers
from vicuna.train.checkpoint import (
    SaveError,
    check_output_directory,
    checkpoint_path,
    claim_output_directory,
    load_checkpoint,
    save_checkpoint,
    whole_checkpoints,
)
from vicuna.train.config import TrainOptions
from vicuna.train.dataset import Batch
from vicuna.train.evaluate import evaluate
from vicuna.train.export import check_export, export_model
from vicuna.train.metrics import StepRecord, TrainLog, peak_memory_bytes
from vicuna.train.model import ConversationModel, load_model
from vicuna.train.optimizer import make_optimizer
from vicuna.train.prepare import Run, prepare
from vicuna.train.signals import StopSignal


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: with a model, or with the signal that stopped it before that."""

    train_log: TrainLog
    model: Path | None = None
    stopped_by: signal.Signals | None = None


def train(config: TrainOptions) -> TrainResult:
    """Fine-tune a model, from the beginning or from the newest checkpoint, to the end or to a stop signal.

    Raises:
        VicunaError: what the user can set right, in one line.
    """
    check_output_directory(config)
    run = prepare(config)
    with claim_output_directory(config, run.identity):
        target = config.output_dir / "model"
        if target.is_dir():
            log.info(f"{target} is there already, from the same model, data and options")
            return TrainResult(TrainLog(config.output_dir, run.num_steps), target)
        return _train(run, target)


def _train(run: Run, target: Path) -> TrainResult:
    """The part of `train` that works: load, restore, all steps, export to `target`."""
    config = run.options
    options.save(config, config.output_dir / "train_config.json")

    torch.manual_seed(config.seed)
    model = load_model(config.model, run.device)
    check_export(model, config.model, target)
    if config.compile:
        compile_layers(model)
    checkpoint_layers(model, "none" if config.activation_checkpointing == "auto" else config.activation_checkpointing)
    optimizer = make_optimizer(model, config)
    with StopSignal() as stop:
        trainer = Trainer(run, model, optimizer, stop)
        if not trainer.train():
            return TrainResult(trainer.log, stopped_by=stop.received)
        stop.answer = "all steps are done; writing the model"
        try:
            trainer.log.draw()
            extra_files = (config.output_dir / "train_config.json", trainer.log.path)
            export_model(model, run.tokenizer, run.template, base=config.model, target=target, extra_files=extra_files)
        except (OSError, VicunaError):
            trainer.save()  # for the same command, when there is room again
            raise
    return TrainResult(trainer.log, target)


class Trainer:
    """The state of a run in progress: model, optimizer, and how many steps are done."""

    def __init__(self, run: Run, model: ConversationModel, optimizer: torch.optim.Optimizer, stop: StopSignal) -> None:
        self.run, self.model, self.optimizer, self.stop = run, model, optimizer, stop
        self.options = run.options
        self.steps_done = self._restore()
        self.log = TrainLog(self.options.output_dir, self.steps_done)

    def train(self) -> bool:
        """Do the steps that are left. False if a stop signal came first; a checkpoint has then been saved."""
        started = time.monotonic()
        first_step = self.steps_done
        if first_step == 0 or self._is_due(self.options.eval_steps):
            self.evaluate()
        # Only the steps of this start, so that the time left is estimated from what this start has seen.
        description = f"training from step {first_step}" if first_step else "training"
        with log.Progress(self.run.num_steps - first_step, description=description, unit="steps") as progress:
            while self.steps_done < self.run.num_steps and not self.stop.received:
                record = self.step()
                progress.update(1, **record.shown())
                self.log.add_step(record, is_due=self._is_due(self.options.logging_steps))
                if self._is_due(self.options.eval_steps):
                    self.evaluate()
                if self._is_due(self.options.save_steps, at_end=False):
                    self.save()
        if not self.stop.received:
            self.evaluate()
        if self.stop.received:
            if self.steps_done > first_step:
                self.save()
            return False
        self.log.add_end(self.steps_done, time.monotonic() - started, peak_memory_bytes(self.run.device))
        return True

    def step(self) -> StepRecord:
        """One optimizer step on the rows that the plan has for it."""
        started = time.monotonic()
        rows = self.run.plan.rows(self.steps_done)
        learning_rate = self.run.schedule.at(self.steps_done)
        batches = self.run.conversations.micro_batches(rows, self.options.per_device_train_batch_size)
        num_supervised = sum(batch.num_supervised for batch in batches)

        self.model.train()
        losses = []
        for batch in batches:
            with self._autocast():
                loss = self.model(batch)  # summed over the batch's supervised tokens
            (loss / num_supervised).backward()
            losses.append(loss.detach())
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
        check_finite(losses, grad_norm, batches, self.steps_done + 1)

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        return StepRecord(
            step=self.steps_done,
            epoch=self.steps_done / self.run.plan.steps_per_epoch,
            loss_sum=torch.stack(losses).sum().item(),
            num_supervised=num_supervised,
            num_tokens=sum(batch.input_ids.numel() for batch in batches),
            learning_rate=learning_rate,
            grad_norm=grad_norm.item(),
            seconds=time.monotonic() - started,
        )

    def evaluate(self) -> None:
        """Measure the held-out loss, unless this step's is known already."""
        if self.run.held_out is None or self.log.has(self.steps_done, "eval_loss"):
            return
        with self._autocast():
            evaluation = evaluate(self.model, self.run.held_out, self.run.held_out_rows, self.stop)
        if evaluation:
            loss, num_tokens = evaluation.loss, evaluation.num_supervised
            log.info(f"held-out loss after step {self.steps_done}: {loss:.4f} ({num_tokens:,} tokens)")
            self.log.add({"step": self.steps_done, "eval_loss": loss, "eval_tokens": num_tokens})

    def save(self) -> None:
        """Save a checkpoint; a disk that refuses does not end the run."""
        path = checkpoint_path(self.options.output_dir, self.steps_done)
        if path in (whole := whole_checkpoints(self.options.output_dir)):
            return
        try:
            save_checkpoint(path, self.steps_done, self.model, self.optimizer, keep=self.options.save_total_limit)
        except SaveError as error:
            kept = f"{whole[-1].name} is still whole" if whole else "there is none before it"
            log.warning(f"{error}; {kept}")

    def _restore(self) -> int:
        whole = whole_checkpoints(self.options.output_dir)
        if not whole:
            return 0
        steps_done = load_checkpoint(whole[-1], self.model, self.optimizer)
        log.info(f"going on from {whole[-1]}: {steps_done} of {self.run.num_steps} steps are done")
        return steps_done

    def _is_due(self, every: int | None, *, at_end: bool = True) -> bool:
        if not every:
            return False
        return at_end if self.steps_done == self.run.num_steps else self.steps_done % every == 0

    def _autocast(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = torch.autocast(
            self.run.device.type, torch.bfloat16, enabled=self.run.bf16
        )
        return context


def check_finite(losses: Sequence[torch.Tensor], grad_norm: torch.Tensor, batches: Sequence[Batch], step: int) -> None:
    """Stop before a broken gradient reaches the weights.

    Raises:
        VicunaError: a loss or the gradient is not finite; the message names the records.
    """
    broken = [batch for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(loss.item())]
    if not broken and math.isfinite(grad_norm.item()):
        return
    what = "loss" if broken else "gradient"
    ids = ", ".join(record_id for batch in broken or batches for record_id in batch.ids)
    raise VicunaError(
        f"the {what} of step {step} is not finite; its records: {ids}; look at them, or lower --learning-rate"
    )
