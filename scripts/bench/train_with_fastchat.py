"""One run of FastChat's `train.py`, in FastChat's environment; only watched, not changed.

    python train_with_fastchat.py JOB.json    (keys: model, sharegpt, output_dir, max_length, batch, accumulation, lr)

The last line it prints is JSON: supervised tokens trained on, CPU-seconds of the training loop, last loss.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import fastchat.train.train as program
import torch
import transformers


class Watch(transformers.TrainerCallback):
    """CPU time between the first step and the end of the last."""

    seconds = 0.0
    loss = float("nan")

    def on_train_begin(self, *_arguments: Any, **_keywords: Any) -> None:
        Watch.seconds = -time.process_time()

    def on_train_end(self, *_arguments: Any, **_keywords: Any) -> None:
        Watch.seconds += time.process_time()

    def on_log(
        self, _arguments: Any, _state: Any, _control: Any, logs: dict[str, float] | None = None, **_keywords: Any
    ) -> None:
        Watch.loss = (logs or {}).get("loss", Watch.loss)


class Trainer(transformers.Trainer):
    """The Trainer that `train.py` uses, watched."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, callbacks=[Watch()], **keywords)
        Trainer.supervised = sum(int((item["labels"] != -100).sum()) for item in self.train_dataset)
        Trainer.real = sum(int(item["attention_mask"].sum()) for item in self.train_dataset)
        Trainer.computed = sum(len(item["input_ids"]) for item in self.train_dataset)


def main() -> None:
    """Run it as its users do, with flags."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    program.Trainer = Trainer
    # Its own way of saving fails without FSDP (KeyError in torch's FSDP module), after the training is done.
    program.trainer_save_model_safe = lambda trainer: trainer.save_model()
    sys.argv[1:] = [
        *("--model_name_or_path", job["model"], "--data_path", job["sharegpt"], "--output_dir", job["output_dir"]),
        *("--model_max_length", str(job["max_length"]), "--num_train_epochs", "1", "--seed", "0"),
        *("--per_device_train_batch_size", str(job["batch"]), "--lr_scheduler_type", "cosine"),
        *("--gradient_accumulation_steps", str(job["accumulation"]), "--learning_rate", str(job["lr"])),
        *("--warmup_ratio", "0.03", "--weight_decay", "0", "--save_strategy", "no", "--logging_steps", "1"),
        *("--report_to", "none", "--use_cpu", "True", "--disable_tqdm", "True", "--bf16", str(job["bf16"])),
    ]
    program.train()
    found = {"supervised": Trainer.supervised, "real": Trainer.real, "computed": Trainer.computed}
    print(json.dumps({**found, "cpu_seconds": Watch.seconds, "loss": Watch.loss, "model": job["output_dir"]}))


main()
