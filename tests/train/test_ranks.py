"""Two ranks train as one process does: the same losses, the same weights, and either goes on with the other's."""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from tests.train.conftest import make_records, save_llama, write_records
from tests.train.launch import on_ranks
from tests.train.test_loop import log_rows, losses, weights
from vicuna.errors import UsageError
from vicuna.train import loop
from vicuna.train.__main__ import main
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.save import export
from vicuna.train.save.checkpoint import whole_checkpoints

MakeOptions = Callable[..., TrainOptions]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "records.jsonl", make_records(60))


def train_on_ranks(num_ranks: int, options: TrainOptions) -> None:
    assert on_ranks(num_ranks, lambda _: train(options)) == [0] * num_ranks


def assert_same(one: TrainOptions, other: TrainOptions) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=1e-4)
    expected = weights(other)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_two_ranks_train_as_one_process_does(make_options: MakeOptions, tmp_path: Path, data: Path) -> None:
    # 36 rows in steps of at most 5: the last micro-batch of a step has rows for one of the two ranks only.
    shape: dict[str, Any] = {"data": (data,), "max_steps": 50, "rows_per_step": 5, "bf16": False, "save_steps": 0}
    one = make_options(output_dir=tmp_path / "one", eval_data=(data,), eval_steps=25, **shape)
    two = make_options(
        output_dir=tmp_path / "two", eval_data=(data,), eval_steps=25, per_device_train_batch_size=2, **shape
    )
    train(one)
    train_on_ranks(2, two)
    assert_same(two, one)
    for ours, theirs in zip(log_rows(two), log_rows(one), strict=True):
        if "eval_loss" in ours:
            assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-4)
        if "loss" in ours:
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
            assert (ours["tokens"], ours["supervised_tokens"]) == (theirs["tokens"], theirs["supervised_tokens"])


@pytest.mark.parametrize(
    ("num_ranks", "changes"),
    [
        (1, {}),  # a group of one
        (2, {"reshard_after_forward": False}),
        (3, {"activation_checkpointing": "full", "weight_decay": 0.1}),  # rows that do not divide evenly
    ],
)
def test_an_architecture_with_biases_and_a_tied_head(
    make_options: MakeOptions,
    tmp_path: Path,
    data: Path,
    bpe_tokenizer_directory: Path,
    num_ranks: int,
    changes: dict[str, Any],
) -> None:
    base = save_qwen(tmp_path / "qwen", bpe_tokenizer_directory)
    shape = {
        "model": base,
        "data": (data,),
        "max_steps": 4,
        "rows_per_step": 6,
        "bf16": False,
        "save_steps": 0,
        **changes,
    }
    one = make_options(output_dir=tmp_path / "one", **shape)
    many = make_options(output_dir=tmp_path / "many", fsdp="on", **shape)
    train(one)
    train_on_ranks(num_ranks, many)
    assert_same(many, one)
    assert (many.output_dir / "model/model.safetensors.index.json").read_bytes() == (
        base / "model.safetensors.index.json"
    ).read_bytes()


def save_qwen(folder: Path, tokenizer: Path) -> Path:
    """A Qwen2 with a tied head, biases, and weights in several files."""
    for file in tokenizer.iterdir():
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder / file.name)
    config = Qwen2Config(
        vocab_size=1500,
        hidden_size=32,
        intermediate_size=50,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_another_number_of_ranks_goes_on(
    make_options: MakeOptions, tmp_path: Path, data: Path, first: int, second: int
) -> None:
    shape: dict[str, Any] = {"data": (data,), "max_steps": 12, "bf16": False, "save_steps": 5, "eval_data": (data,)}
    shape |= {"gradient_accumulation_steps": 2 if first == 2 else 4}
    clean, moved = (
        make_options(output_dir=tmp_path / "clean", **shape),
        make_options(output_dir=tmp_path / "moved", **shape),
    )
    train_on_ranks(first, clean)
    assert on_ranks(first, lambda _: stop_after(moved, 7)) == [143 << 8] * first
    train_on_ranks(second, moved)
    assert [row["step"] for row in log_rows(moved) if "loss" in row] == list(range(1, 13))
    assert_same(moved, clean)


def test_a_checkpoint_after_an_evaluation_has_all_of_the_state(
    make_options: MakeOptions, tmp_path: Path, data: Path
) -> None:
    # What an evaluation gathered and no backward pass dropped again must not be taken for the weights.
    shape: dict[str, Any] = {"data": (data,), "max_steps": 6, "rows_per_step": 4, "save_steps": 3, "bf16": False}
    shape |= {"eval_data": (data,), "eval_steps": 3, "reshard_after_forward": False}
    clean, moved = (
        make_options(output_dir=tmp_path / "clean", **shape),
        make_options(output_dir=tmp_path / "m", **shape),
    )
    train_on_ranks(2, clean)
    assert on_ranks(2, lambda _: stop_after(moved, 4)) == [143 << 8] * 2
    shutil.rmtree(moved.output_dir / "checkpoints/step-00000004")
    train_on_ranks(2, moved)
    for name, weight in weights(moved).items():
        assert torch.equal(weight, weights(clean)[name])


def stop_after(options: TrainOptions, step: int) -> None:
    """Train, with SIGTERM for the last rank only, in the middle of a step."""
    original = loop.Trainer.step

    def step_and_signal(self: loop.Trainer) -> Any:
        if self.steps_done + 1 == step and self.ranks.rank == self.ranks.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    loop.Trainer.step = step_and_signal  # type: ignore[method-assign]
    result = train(options)
    assert result.stopped_by == signal.SIGTERM
    raise SystemExit(143)


def test_a_failure_on_one_rank_ends_all_and_is_told_once(
    make_options: MakeOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = make_options(model=tmp_path / "missing")

    def work(_: int) -> None:
        raise SystemExit(main(["--model", str(options.model), "--data", str(options.data[0]), "--output-dir", "x"]))

    assert on_ranks(2, work) == [1 << 8] * 2
    assert capfd.readouterr().err.count("no such directory") == 1


def test_several_ranks_without_sharding_are_refused(make_options: MakeOptions) -> None:
    def work(_: int) -> None:
        with pytest.raises((UsageError, SystemExit), match=r"--fsdp off: 2 ranks share one model|2"):
            train(make_options(fsdp="off"))

    assert on_ranks(2, work) == [0, 0]


def test_a_disk_that_is_full_for_one_rank_at_the_export_loses_no_step(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = save_qwen(tmp_path / "qwen", bpe_tokenizer_directory)
    options = make_options(model=base, max_steps=2, save_steps=0, bf16=False)

    def work(rank: int) -> None:
        def full(folder: Path, shards: Any, _: Any, data_of: Any) -> Any:
            next(iter(data_of(shards[0].tensors[0])))  # some of it has been written
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

        if rank == 1:
            export.write_checkpoint = full  # type: ignore[assignment]
        try:
            train(options)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    assert on_ranks(2, work) == [1 << 8] * 2
    assert capfd.readouterr().err.count("error: ") == 1
    assert not (options.output_dir / "model").exists()
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000002"]
    train_on_ranks(2, options)
    clean = make_options(
        output_dir=tmp_path / "clean", model=base, max_steps=2, save_steps=0, bf16=False, rows_per_step=2
    )
    train(clean)
    assert_same(options, clean)


def test_the_rank_whose_loss_is_broken_names_its_records(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    base = save_llama(tmp_path / "base", bpe_tokenizer_directory)
    tokenizer = AutoTokenizer.from_pretrained(base)
    records = make_records(6)
    known = set(tokenizer(json.dumps(records))["input_ids"])
    token = next(token for token in tokenizer("zebra")["input_ids"] if token not in known)
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][token] = torch.nan
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    records[3]["messages"][0]["content"] = "zebra"
    data = write_records(tmp_path / "poisoned.jsonl", records)
    options = make_options(model=base, data=(data,), rows_per_step=6)
    assert on_ranks(2, lambda _: train(options)) == [1 << 8] * 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "the loss of step 1 is not finite" in line
    assert "record-3" in line
    assert line.count("record-") < 6
