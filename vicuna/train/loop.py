"""The training loop: the rows of a step, forward, backward, clip, update; log, evaluate, save.

The loss of a step is the sum over its supervised tokens divided by their number in the whole step, however the step is
divided into micro-batches and over ranks: a mean of the micro-batches' means would give tokens of micro-batches with
few labels more weight (gradients 14-35% off on ShareGPT-like conversations).

Before: `prepare`. After: `export`, which `train` calls when the last step is done.
"""

import math
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh

from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.options import save as save_options
from vicuna.train.batches.dataset import Batch
from vicuna.train.batches.packing import deal
from vicuna.train.model.conversation_model import ConversationModel, load_model
from vicuna.train.model.flops import count_flops
from vicuna.train.model.parallel import local_shard
from vicuna.train.model.wrapping import wrap_model
from vicuna.train.optim.optimizer import make_optimizer
from vicuna.train.options import TrainOptions
from vicuna.train.planner.preflight import log_preflight, make_preflight
from vicuna.train.prepare import Run, prepare
from vicuna.train.ranks import join_ranks
from vicuna.train.save.adapter import export_adapter
from vicuna.train.save.checkpoint import checkpoint_path, load_checkpoint, newest_intact, whole_checkpoints
from vicuna.train.save.export import check_room, export_model
from vicuna.train.save.output import RUN, check_output_directory, claim_output_directory
from vicuna.train.save.saver import CheckpointSaver
from vicuna.train.signals import StopSignal
from vicuna.train.watch.evaluate import evaluate
from vicuna.train.watch.generations import generate
from vicuna.train.watch.guard import LossGuard, refuse_not_finite, refuse_spike
from vicuna.train.watch.metrics import Meter, StepMetrics, TrainLog, peak_device_memory_bytes
from vicuna.train.watch.reporters import Reporters, check_reporters


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: with a model, or by the signal that stopped it."""

    train_log: TrainLog
    model: Path | None = None
    stopped_by: signal.Signals | None = None


def train(options: TrainOptions) -> TrainResult:
    """Fine-tune a model, from the beginning or from the newest checkpoint, to the end or to a stop signal.

    Every rank that `torchrun` started calls it; without `torchrun` there is one.

    Raises:
        VicunaError: what the user can set right, in one line.
    """
    with (
        join_ranks(options.device, alone_in_group=options.fsdp == "on" or options.cpu_offload) as ranks,
        ExitStack() as stack,
    ):
        with ranks.agreed():
            check_output_directory(options)
            check_reporters(options)
            run = prepare(options, ranks)
        options = run.options  # `model` is the folder now, where a hub's name was given
        with ranks.agreed():
            if ranks.is_first:
                stack.enter_context(claim_output_directory(options, run.identity))
        with ranks.agreed():
            if not (options.output_dir / RUN).is_file():
                raise VicunaError(f"rank {ranks.rank} does not see --output-dir {options.output_dir}; all ranks must")
        target = options.output_dir / ("adapter" if options.has_adapter else "model")
        if target.is_dir():
            log.info(f"{target} is there already, from the same model, data and options")
            return TrainResult(TrainLog(options.output_dir, run.num_steps, writes=ranks.is_first), target)
        return _train(run, target)


def _train(run: Run, target: Path) -> TrainResult:
    """Load the model, restore a checkpoint, do all steps, and export to `target`."""
    options, ranks = run.options, run.ranks
    torch.manual_seed(options.seed + ranks.rank)
    mesh = init_device_mesh(run.device.type, (ranks.size,)) if run.is_sharded else None
    with ranks.agreed():
        if ranks.is_first:
            save_options(options, options.output_dir / "train_config.json")
            if not options.has_adapter:
                check_room(options.model, target)
        preflight = make_preflight(run)
        log_preflight(run, preflight)
    checkpointing = ranks.all_gather(preflight.checkpointing)[0]  # rank 0's: the ranks' memory may differ
    with ranks.agreed():
        model = load_model(
            options.model,
            run.config,
            run.device,
            lambda model: wrap_model(model, options, checkpointing=checkpointing, mesh=mesh, bf16=run.bf16),
            offload=options.cpu_offload,
            seed=options.seed,
        )
    optimizer = make_optimizer(model, options)
    with (
        StopSignal() as stop,
        CheckpointSaver(ranks, keep=options.save_total_limit, in_background=options.save_in_background) as saver,
        ExitStack() as stack,
    ):
        trainer = Trainer(run, model, optimizer, stop, saver, preflight.meter(run))
        stack.callback(trainer.log.close)
        if not trainer.train():
            return TrainResult(trainer.log, stopped_by=stop.agreed)
        stop.answer = "all steps are done; writing the model"
        saver.wait()
        try:
            with ranks.agreed():
                trainer.log.draw()
            extra_files = (options.output_dir / "train_config.json", trainer.log.path)
            export = export_adapter if options.has_adapter else export_model
            export(
                model,
                run.tokenizer,
                run.template,
                options=options,
                target=target,
                extra_files=extra_files,
                ranks=ranks,
            )
        except (OSError, VicunaError, SystemExit):
            trainer.save(at_once=True)  # the same command goes on from it, when there is room
            raise
    return TrainResult(trainer.log, target)


class Trainer:
    """The state of a run in progress: model, optimizer, and the number of steps done.

    Every rank has one, and all do the same steps in the same order, each on its own rows and its own shards.
    """

    def __init__(
        self,
        run: Run,
        model: ConversationModel,
        optimizer: torch.optim.Optimizer,
        stop: StopSignal,
        saver: CheckpointSaver,
        meter: Meter,
    ) -> None:
        self.run, self.model, self.optimizer, self.stop, self.saver = run, model, optimizer, stop, saver
        self.options, self.ranks = run.options, run.ranks
        self.steps_done = self._restore()
        reporters = Reporters(self.options) if self.ranks.is_first else None
        self.log = TrainLog(
            self.options.output_dir, self.steps_done, writes=self.ranks.is_first, meter=meter, reporters=reporters
        )
        self.guard = LossGuard(self.options.loss_spike_factor)
        self.flops = count_flops(model)

    def train(self) -> bool:
        """Do the remaining steps. False if a stop signal came first; a checkpoint has then been saved."""
        started = time.monotonic()
        first_step = self.steps_done
        if first_step == 0 or self._is_due(self.options.eval_steps):
            self.evaluate()
        # Only the steps since this start, from which the time left is estimated.
        description = f"training from step {first_step}" if first_step else "training"
        with log.Progress(self.run.num_steps - first_step, description=description, unit="steps") as progress:
            while self.steps_done < self.run.num_steps and not self.stop.agreed:
                metrics = self.step()
                progress.update(1, **self.log.shown(metrics))
                self.log.add_step(metrics, is_due=self._is_due(self.options.logging_steps))
                if self._is_due(self.options.eval_steps):
                    self.evaluate()
                if self._is_due(self.options.save_steps, at_end=False):
                    self.save()
        if not self.stop.agreed:
            self.evaluate()
        if self.stop.agreed:
            if self.steps_done > first_step:
                self.save(at_once=True)
            return False
        self.log.add_end(self.steps_done, time.monotonic() - started, peak_device_memory_bytes(self.run.device))
        return True

    def step(self) -> StepMetrics:
        """One optimizer step on its rows of the packed epochs."""
        started = time.monotonic()
        rows = self.run.epochs.rows(self.steps_done)  # of all ranks together
        num_supervised = self.run.conversations.num_supervised(rows)
        learning_rate = self.run.schedule.at(self.steps_done)
        batches = self._micro_batches(rows)

        self.model.train()
        losses = []
        for batch in batches:
            with self._autocast():
                loss = self.model(batch)  # summed over the batch's labels
            (loss / num_supervised).backward()  # a sharded model reduces its gradients over the ranks here
            losses.append(loss.detach())
        gradients = [local_shard(weight.grad) for weight in self.model.parameters() if weight.grad is not None]
        square_norm = torch.nn.utils.get_total_norm(gradients).square().to(self.run.device)

        # The one all-reduce of a step besides the gradients', and the one synchronization with the device.
        stops = torch.tensor(self.stop.flags(), device=self.run.device)
        flops = torch.tensor([sum(map(self.flops.of_batch, batches))], dtype=torch.float64, device=self.run.device)
        sums = torch.cat([torch.stack([torch.stack(losses).sum(), square_norm]), flops, stops])
        loss_sum, square_norm_sum, flops_sum, *stop_sums = self.ranks.all_reduce(sums).tolist()
        grad_norm = math.sqrt(square_norm_sum)
        self.stop.agree(stop_sums)
        if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
            refuse_not_finite(losses, batches, self.steps_done + 1, self.ranks)
        if self.guard.is_spike(loss_sum / num_supervised):
            loss_mean = loss_sum / num_supervised
            refuse_spike(losses, batches, self.steps_done + 1, loss_mean, self.guard, self.ranks)

        if grad_norm > self.options.max_grad_norm:
            torch._foreach_mul_(gradients, self.options.max_grad_norm / grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        return StepMetrics(
            step=self.steps_done,
            epoch=self.steps_done / self.run.epochs.steps_per_epoch,
            loss_sum=loss_sum,
            num_supervised=num_supervised,
            num_tokens=self.run.conversations.num_tokens(rows),
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            seconds=time.monotonic() - started,
            flops=round(flops_sum),
        )

    def evaluate(self) -> None:
        """Generate replies and measure the held-out loss, unless this step has them already."""
        self._generate()
        if self.run.held_out is None:
            return
        if not self.ranks.any(self.ranks.is_first and not self.log.has(self.steps_done, "eval_loss")):
            return
        with self._autocast():
            evaluation = evaluate(self.model, self.run.held_out, self.run.held_out_rows, self.stop, self.ranks)
        if evaluation:
            loss, num_tokens = evaluation.loss, evaluation.num_supervised
            log.info(f"held-out loss after step {self.steps_done}: {loss:.4f} ({num_tokens:,} tokens)")
            self.log.add({"step": self.steps_done, "eval_loss": loss, "eval_tokens": num_tokens})

    def _generate(self) -> None:
        """Generate replies to the prompts, and write them to `samples.jsonl`."""
        prompts = self.run.prompts
        if not prompts or not self.ranks.any(self.ranks.is_first and self.steps_done not in self.log.generated_steps):
            return
        with self._autocast():
            replies = generate(
                self.model,
                prompts,
                self.run.template,
                self.run.tokenizer,
                self.ranks,
                max_new_tokens=self.options.sample_tokens,
            )
        generations = [
            {"prompt": prompt[-1].content, "reply": reply} for prompt, reply in zip(prompts, replies, strict=True)
        ]
        self.log.add_generations(self.steps_done, generations)
        first = f"{generations[0]['prompt'][:60]!r}: {generations[0]['reply'][:100]!r}"
        log.info(f"{len(generations)} samples after step {self.steps_done}; {first}")

    def save(self, *, at_once: bool = False) -> None:
        """Save a checkpoint, in the background unless `at_once`; a disk that refuses does not end the run."""
        self.saver.wait()
        path = checkpoint_path(self.options.output_dir, self.steps_done)
        if not self.ranks.any(self.ranks.is_first and path in whole_checkpoints(self.options.output_dir)):
            self.saver.save(path, self.steps_done, self.model, self.optimizer, at_once=at_once)

    def _restore(self) -> int:
        """Load the newest checkpoint that is intact, if there is one; the number of steps done."""
        path = newest_intact(self.options.output_dir, self.ranks)
        if path is None:
            return 0
        with self.ranks.agreed():
            steps_done = load_checkpoint(path, self.model, self.optimizer, self.ranks.rank)
        log.info(f"going on from {path}: {steps_done} of {self.run.num_steps} steps are done")
        return steps_done

    def _micro_batches(self, rows: Sequence[tuple[int, ...]]) -> list[Batch]:
        """This rank's micro-batches of a step's rows."""
        lengths = self.run.conversations.conversations.lengths
        dealt = deal(rows, lengths, self.options.per_device_train_batch_size, self.ranks.size)
        return [self.run.conversations.batch(batch) for batch in dealt[self.ranks.rank]]

    def _is_due(self, every: int | None, *, at_end: bool = True) -> bool:
        if not every:
            return False
        return at_end if self.steps_done == self.run.num_steps else self.steps_done % every == 0

    def _autocast(self) -> AbstractContextManager[object]:
        """Autocast to bfloat16, except for a sharded model, which gathers its layers in bfloat16."""
        context: AbstractContextManager[object] = torch.autocast(
            self.run.device.type, torch.bfloat16, enabled=self.run.bf16 and not self.run.is_sharded
        )
        return context
