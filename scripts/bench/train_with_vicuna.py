"""One run of `python -m vicuna.train`, in our environment; only watched, not changed.

    python train_with_vicuna.py JOB.json    (keys: model, records, output_dir, max_length, flags)

The last line it prints is JSON: supervised tokens trained on, CPU-seconds of the training loop, last loss.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from vicuna.train import loop
from vicuna.train.__main__ import main as program
from vicuna.train.batches.dataset import Batch, ConversationDataset
from vicuna.train.batches.packing import Row

ROUND_TRIP = ["--num-train-epochs", "1", "--seed", "0", "--save-steps", "0", "--device", "cpu"]


def main() -> None:
    """Run it as its users do, with flags."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    seconds, computed = 0.0, 0
    train, batch = loop.Trainer.train, ConversationDataset.batch

    def watched(trainer: loop.Trainer) -> bool:
        nonlocal seconds
        started = time.process_time()
        try:
            return train(trainer)
        finally:
            seconds += time.process_time() - started

    def counted(dataset: ConversationDataset, rows: Sequence[Row]) -> Batch:
        nonlocal computed
        found = batch(dataset, rows)
        computed += found.input_ids.numel()
        return found

    files = ["--model", job["model"], "--data", job["records"], "--output-dir", job["output_dir"]]
    options = ["--max-length", str(job["max_length"]), "--learning-rate", str(job["lr"])]
    options += ["--bf16" if job["bf16"] else "--no-bf16"]
    with patch.object(loop.Trainer, "train", watched), patch.object(ConversationDataset, "batch", counted):
        status = program([*files, *options, *ROUND_TRIP, *job["flags"]])
    if status:
        sys.exit(status)
    lines = (Path(job["output_dir"]) / "train_log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    supervised, tokens = (sum(row[name] for row in rows) for name in ("supervised_tokens", "tokens"))
    found = {"supervised": supervised, "real": tokens, "computed": computed, "cpu_seconds": seconds}
    print(json.dumps({**found, "loss": rows[-1]["loss"], "model": str(Path(job["output_dir"]) / "model")}))


main()
