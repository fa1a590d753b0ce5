"""A loss that is not finite, or a spike, stops the run before the update and names the records."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.train.builders import MakeOptions, log_entries, make_record, make_records, save_llama, write_records
from tests.train.launch import on_ranks
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.watch import guard
from vicuna.train.watch.guard import LossGuard


def poisoned(folder: Path, tokenizer_directory: Path) -> tuple[Path, Path]:
    """A model in which one token is not a number, and records of which record-3 has that token."""
    base = save_llama(folder / "base", tokenizer_directory)
    tokenizer = AutoTokenizer.from_pretrained(base)
    records = make_records(6)
    known = set(tokenizer(json.dumps(records))["input_ids"])
    token = next(token for token in tokenizer("zebra")["input_ids"] if token not in known)
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][token] = torch.nan
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    records[3]["messages"][0]["content"] = "zebra"
    return base, write_records(folder / "poisoned.jsonl", records)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_records(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    base, data = poisoned(tmp_path, bpe_tokenizer_directory)
    options = make_options(model=base, data=(data,), gradient_accumulation_steps=6)
    with pytest.raises(VicunaError, match=r"the loss of step 1 is not finite; its records: .*record-3") as caught:
        train(options)
    assert str(caught.value).count("record-") < 6  # only the micro-batch with the broken loss is named
    assert not (options.output_dir / "model").exists()


def test_the_rank_whose_loss_is_broken_names_its_records(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, data = poisoned(tmp_path, bpe_tokenizer_directory)
    options = make_options(model=base, data=(data,), rows_per_step=6)
    assert on_ranks(2, lambda _: train(options)) == [1 << 8] * 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "the loss of step 1 is not finite" in line
    assert "record-3" in line
    assert line.count("record-") < 6


def test_a_spike_stops_the_run_before_the_update(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One row a step; the row with other words than the rest is the spike.
    records = [{**make_record("a", "hello world " * 12), "id": f"easy-{number}"} for number in range(12)]
    records[5] = {**make_record("a", "zebra quartz vexing jumbled sphinx of black " * 3), "id": "odd"}
    monkeypatch.setattr(guard, "WARM_UP", 3)
    monkeypatch.setattr(guard, "MIN_SPIKE", 0.0)
    data = write_records(tmp_path / "data.jsonl", records)
    options = make_options(data=(data,), learning_rate=1e-2, max_steps=60, save_steps=1, loss_spike_factor=1.5)
    with pytest.raises(VicunaError, match=r"the loss of step \d+ leaps to .* its records: .*odd.*--loss-spike-factor"):
        train(options)
    step = max(entry["step"] for entry in log_entries(options))
    assert whole_checkpoints(options.output_dir)[-1].name == f"step-{step:08d}"
    assert not (options.output_dir / "model").exists()


def test_what_counts_as_a_spike() -> None:
    watched = LossGuard(5.0)
    assert not any(watched.is_spike(loss) for loss in (2.0, 50.0, *[1.0] * 20))  # nothing does at the beginning
    assert not watched.is_spike(4.9)
    assert watched.is_spike(5.1)
    low = LossGuard(5.0)
    assert not any(low.is_spike(0.01) for _ in range(20))
    assert not low.is_spike(0.9)  # ninety times as much, and still nothing
    assert low.is_spike(1.2)
    never = LossGuard(0.0)
    assert not any(never.is_spike(loss) for loss in [1.0] * 30 + [1e9])
