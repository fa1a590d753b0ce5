"""`python -m vicuna.train`: fine-tune a model on conversations. The training loop is in `loop.py`.

torch and transformers take seconds to load, so they are imported when the flags are known to be good.
"""

import signal
import sys
from typing import TYPE_CHECKING

from vicuna.errors import UsageError, require
from vicuna.io import log
from vicuna.io.terminal import write_json, write_text
from vicuna.options import command, parse
from vicuna.train.options import TrainOptions
from vicuna.train.planner.known_plans import find_known, keep_known
from vicuna.train.planner.options import PlanOptions
from vicuna.train.waiting import wait_without_spinning

if TYPE_CHECKING:
    from vicuna.train.loop import TrainResult

DESCRIPTION = "Fine-tune a LLaMA-architecture model on conversations; only the assistant's replies are learned."
EPILOG = """examples:
  vicuna train --model base/ --data records.jsonl --eval-data held_out.jsonl --output-dir tuned/
  (the same line again goes on from the newest checkpoint; the result is in tuned/model)"""

PLAN_DESCRIPTION = "Print what a run will take: memory of each GPU, tokens, hours, dollars. Nothing of it need be here."
PLAN_EPILOG = """examples:
  vicuna train --plan --model-shape llama-13b --gpu a100-80gb:8 --rows-per-step 128 \\
    --num-conversations 70000 --num-tokens 207000000
  vicuna train --plan --model base/ --data records.jsonl        (on the hardware of this machine)"""


@command
def main(argv: list[str] | None = None) -> int:
    """Train and print where the model is and what it cost; with `--plan`, print the plan of the run instead."""
    if "--plan" in (sys.argv if argv is None else argv):
        return print_plan(argv)
    options = parse(TrainOptions, argv, prog="vicuna train", description=DESCRIPTION, epilog=EPILOG)
    if options.plan:  # from a config file, which cannot turn a run into a plan
        raise UsageError("--plan is a flag of the command line; take it out of the --config file and give it there")
    wait_without_spinning()
    require("torch", "train")
    require("transformers", "train").utils.logging.set_verbosity_error()
    from vicuna.train.loop import train

    result = train(options)
    if result.stopped_by:
        log.info(f"stopped by {result.stopped_by.name}; the same command goes on from {options.output_dir}")
        return 128 + exit_signal(result.stopped_by)
    if result.train_log.writes:  # rank 0
        write_text(summary(result))
    return 0


def exit_signal(received: signal.Signals) -> signal.Signals:
    """The signal in the exit code (128 + signal): SIGTERM for SIGUSR1 too, with which schedulers announce a SIGTERM."""
    return signal.SIGTERM if received == signal.SIGUSR1 else received


def print_plan(argv: list[str] | None) -> int:
    """Print what a run would take: memory, tokens, hours, dollars."""
    options = parse(PlanOptions, argv, prog="vicuna train", description=PLAN_DESCRIPTION, epilog=PLAN_EPILOG)
    if (known := find_known(options)) is None:
        require("torch", "train")
        require("transformers", "train").utils.logging.set_verbosity_error()
        from vicuna.train.planner.report import make_plan

        plan = make_plan(options)
        known = {"json": plan.to_dict(), "text": str(plan)}
        keep_known(options, known)
    if options.json:
        write_json(known["json"], indent=2)
    else:
        write_text(known["text"])
    return 0


def summary(result: "TrainResult") -> str:
    """The lines that the command prints at the end: where the model is, losses, time and memory."""
    find = result.train_log.find
    lines = [f"model: {result.model}"]
    if result.model and result.model.name == "adapter":
        lines = [f"adapter: {result.model}; vicuna weights merge-lora makes it part of its model"]
    if losses := find("loss"):
        lines.append(f"training loss: {losses[0][1]:.4f} -> {losses[-1][1]:.4f} over {losses[-1][0]:.0f} steps")
    if held_out := find("eval_loss"):
        lines.append(f"held-out loss: {held_out[0][1]:.4f} -> {held_out[-1][1]:.4f}")
    for _, seconds in find("train_seconds")[-1:]:
        lines.append(f"training took {log.human_seconds(seconds)}")
    for _, size in find("peak_memory_bytes")[-1:]:
        lines.append(f"peak memory: {log.human_bytes(size)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(None))
