"""One run of TRL's `SFTTrainer`, in TRL's environment.

    python train_with_trl.py JOB.json

    keys: model, tokens (JSON lines: input_ids, labels), output_dir, max_length, batch, accumulation, lr, packing,
    strategy (None or "group_by_length")

The tokens are given, so that it learns exactly what ours learns. The last line it prints is JSON: supervised tokens
trained on, CPU-seconds of the training loop, last loss.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl


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


def main() -> None:
    """Train on the job's tokens."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in Path(job["tokens"]).read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    tokenizer.pad_token = tokenizer.unk_token
    strategy = {"train_sampling_strategy": job["strategy"]} if job["strategy"] else {}
    config = trl.SFTConfig(
        output_dir=job["output_dir"],
        max_length=job["max_length"],
        packing=job["packing"],
        per_device_train_batch_size=job["batch"],
        gradient_accumulation_steps=job["accumulation"],
        num_train_epochs=1,
        learning_rate=job["lr"],
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        weight_decay=0.0,
        gradient_checkpointing=False,
        bf16=job["bf16"],
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=0,
        **strategy,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    trainer = trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Watch()],
    )
    computed = 0
    collate = trainer.data_collator

    def counting(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        nonlocal computed
        batch: dict[str, torch.Tensor] = collate(features)
        computed += batch["input_ids"].numel()
        return batch

    trainer.data_collator = counting
    trainer.train()
    trainer.save_model(job["output_dir"])
    found = {
        "supervised": sum(sum(label != -100 for label in row["labels"]) for row in rows),
        "real": sum(len(row["input_ids"]) for row in rows),
        "computed": computed,
    }
    print(json.dumps({**found, "cpu_seconds": Watch.seconds, "loss": Watch.loss, "model": job["output_dir"]}))


main()
