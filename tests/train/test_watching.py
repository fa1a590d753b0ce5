"""What a run shows of itself: figures, samples, pages of others, and when it stops rather than go on."""

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train.conftest import TEMPLATE, make_records, write_records
from tests.train.launch import on_ranks
from tests.train.test_loop import log_rows
from vicuna.conversation import Message, encode_prompt, get_template
from vicuna.errors import VicunaError
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.loop import train
from vicuna.train.model import attention
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.flops import count_flops
from vicuna.train.options import TrainOptions
from vicuna.train.planner.preflight import Preflight
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.watch import guard
from vicuna.train.watch.guard import LossGuard
from vicuna.train.watch.metrics import Meter

MakeOptions = Callable[..., TrainOptions]


def samples(options: TrainOptions) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (options.output_dir / "samples.jsonl").read_text().splitlines()]


def test_the_arithmetic_is_what_the_matrices_compute(
    model: ConversationModel, dataset: ConversationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "can_skip_queries", lambda *_: False)
    batch = replace(dataset.batch([(0, 1, 2)]), supervised_spans=None)  # as on a GPU
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(batch).backward()
    computed = counter.get_flop_counts()["Global"]
    products = sum(number for operation, number in computed.items() if "mm" in str(operation))
    flops = count_flops(model)
    assert flops.of(batch.input_ids.numel(), batch.num_supervised, 0) == products
    # Attention sees half of the pairs that the counter, which knows no causal mask, counts in the forward pass.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(batch)
    pairs = sum(number for operation, number in counter.get_flop_counts()["Global"].items() if "bmm" in str(operation))
    lengths = batch.documents.lengths
    assert flops.of(0, 0, sum(length**2 for length in lengths)) == 3 * pairs // 2


def test_a_logged_row_tells_share_memory_speed_and_money(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Preflight.meter
    monkeypatch.setattr(
        Preflight, "meter", lambda self, run: Meter(run.device, 1, 1e12, meter(self, run).price_per_hour)
    )
    options = make_options(price_per_gpu_hour=3600.0, logging_steps=2)
    train(options)
    rows = [row for row in log_rows(options) if "loss" in row]
    for row in rows:
        assert row["supervised_share"] == pytest.approx(row["supervised_tokens"] / row["tokens"], abs=1e-4)
        assert row["memory_bytes"] > 1 << 20
        assert 0 < row["mfu"] < 1
    spent = [row["dollars"] for row in log_rows(options) if "dollars" in row]
    assert spent == sorted(spent) and 0 < spent[0] < spent[-1] < 3600  # a dollar a second
    assert "memory: at most" in (said := capsys.readouterr().err)
    assert "in replies" in said and "MFU" in said and "cost $" in said
    assert (options.output_dir / "throughput.svg").read_text().count("<polyline") == 1


def test_money_is_counted_on_after_a_restart(make_options: MakeOptions) -> None:
    options = make_options(price_per_gpu_hour=3600.0)
    log = options.output_dir
    log.mkdir()
    from vicuna.train.watch.metrics import TrainLog

    (log / "train_log.jsonl").write_text('{"step": 1, "dollars": 100.0}\n{"step": 5, "dollars": 900.0}\n')
    resumed = TrainLog(log, 2, meter=Meter(torch.device("cpu"), 2, None, 3600.0))
    assert 100 < (resumed.dollars() or 0) < 130


def test_samples_are_what_the_model_would_answer(make_options: MakeOptions, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hello world\n\nimport path\n")
    options = make_options(sample_prompts=prompts, sample_tokens=7, eval_steps=3, learning_rate=5e-3)
    train(options)
    found = samples(options)
    assert [(row["step"], row["prompt"]) for row in found] == [
        (step, prompt) for step in (0, 3, 6) for prompt in ("hello world", "import path")
    ]
    exported = AutoModelForCausalLM.from_pretrained(options.output_dir / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.output_dir / "model")
    for row in found[-2:]:
        ids = encode_prompt([Message("user", row["prompt"])], get_template(TEMPLATE), tokenizer)
        output = exported.generate(torch.tensor([ids]), max_new_tokens=7, do_sample=False)[0, len(ids) :]
        assert tokenizer.decode(output, skip_special_tokens=True).strip() == row["reply"].strip()


def test_ranks_answer_together(make_options: MakeOptions, tmp_path: Path) -> None:
    prompts = write_records(tmp_path / "prompts.jsonl", make_records(3, seed=5))
    shape: dict[str, Any] = {"sample_prompts": prompts, "num_samples": 2, "sample_tokens": 5, "rows_per_step": 2}
    one = make_options(output_dir=tmp_path / "one", bf16=False, **shape)
    two = make_options(output_dir=tmp_path / "two", bf16=False, **shape)
    train(one)
    assert on_ranks(2, lambda _: train(two)) == [0, 0]
    assert samples(one) == samples(two)
    assert len(samples(one)) == 4  # before the first step and after the last


def test_a_resumed_run_keeps_the_samples_of_its_past_only(make_options: MakeOptions, tmp_path: Path) -> None:
    held_out = write_records(tmp_path / "held_out.jsonl", make_records(2, seed=9))
    options = make_options(eval_data=(held_out,), eval_steps=1, num_samples=1, sample_tokens=2, max_steps=4)
    train(options)
    whole = samples(options)
    for path in (options.output_dir / "model", whole_checkpoints(options.output_dir)[-1]):
        path.rename(tmp_path / path.name)
    kept = len(whole_checkpoints(options.output_dir))
    train(options)
    assert samples(options) == whole
    assert kept == 0 or len(whole) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", "holds no prompt; write one a line"),
        ("latin.txt", b"\xff\xfe\xfa", "is not UTF-8"),
        ("missing.txt", None, "missing.txt"),
    ],
)
def test_prompts_that_cannot_be_used(
    make_options: MakeOptions, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((VicunaError, OSError), match=message):
        train(make_options(sample_prompts=tmp_path / name))


def test_tensorboard_and_wandb_are_told_every_row(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder.endswith("tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert isinstance(value, int | float)
            told.append(("tensorboard", name, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            told.append(("tensorboard", "closed", 0))

    class Page:
        def log(self, numbers: dict[str, float], step: int) -> None:
            told.extend(("wandb", name, step) for name in numbers)

        def finish(self) -> None:
            told.append(("wandb", "closed", 0))

    board: Any = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = SummaryWriter
    wandb: Any = types.ModuleType("wandb")
    wandb.init = lambda **settings: Page() if settings["config"]["max_steps"] == 6 else None
    for name, module in (("torch.utils.tensorboard", board), ("tensorboard", board), ("wandb", wandb)):
        monkeypatch.setitem(sys.modules, name, module)
    train(make_options(report_to=("tensorboard", "wandb")))
    for reporter in ("tensorboard", "wandb"):
        assert {(reporter, "train/loss", step) for step in range(1, 7)} <= set(told)
        assert (reporter, "closed", 0) in told


def test_a_page_that_fails_does_not_end_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb: Any = types.ModuleType("wandb")

    def fail(**_: Any) -> None:
        raise RuntimeError("no network")

    wandb.init = fail
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert train(make_options(report_to=("wandb",))).model
    assert capsys.readouterr().err.count("--report-to wandb: no network (the run goes on without it)") == 1


def test_a_page_that_is_not_installed_is_told_before_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = make_options(report_to=("wandb",))
    with pytest.raises(VicunaError, match="--report-to wandb: it is not installed: pip install wandb"):
        train(options)
    assert not options.output_dir.exists()


def test_a_loss_that_leaps_stops_the_run_before_the_update(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One row a step; the row with other words than the rest is the leap.
    records = [
        {"id": f"easy-{number}", "messages": [Message("user", "a"), Message("assistant", "hello world " * 12)]}
        for number in range(12)
    ]
    records[5]["messages"][1] = Message("assistant", "zebra quartz vexing jumbled sphinx of black " * 3)
    for record in records:
        record["messages"] = [{"role": message.role, "content": message.content} for message in record["messages"]]
    records[5]["id"] = "odd"
    monkeypatch.setattr(guard, "WARM_UP", 3)
    monkeypatch.setattr(guard, "MIN_SPIKE", 0.0)
    data = write_records(tmp_path / "data.jsonl", records)
    options = make_options(data=(data,), learning_rate=1e-2, max_steps=60, save_steps=1, loss_spike_factor=1.5)
    with pytest.raises(VicunaError, match=r"the loss of step \d+ leaps to .* its records: .*odd.*--loss-spike-factor"):
        train(options)
    step = max(row["step"] for row in log_rows(options))
    assert whole_checkpoints(options.output_dir)[-1].name == f"step-{step:08d}"
    assert not (options.output_dir / "model").exists()


def test_what_counts_as_a_leap() -> None:
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
