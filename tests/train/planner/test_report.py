"""The plan as the command prints it: figures that follow from one another."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.train.builders import MakeOptions
from vicuna.train.__main__ import main
from vicuna.train.loop import train
from vicuna.train.planner import fit
from vicuna.train.planner.hardware import GIB, Gpu, get_shape
from vicuna.train.planner.options import PlanOptions
from vicuna.train.planner.report import make_plan
from vicuna.train.planner.speed import measure_model

SMALL: dict[str, Any] = {"model_shape": "smollm2-135m", "gpu": "a100-80gb:2", "max_length": 512}

EPOCH: dict[str, Any] = {"num_conversations": 1000, "num_tokens": 400_000}


def test_the_figures_follow_from_one_another() -> None:
    plan = make_plan(PlanOptions(**SMALL, **EPOCH, num_train_epochs=2.0, gradient_accumulation_steps=4))
    told = plan.to_dict()
    work = told["workload"]
    assert abs(work["num_tokens"] - 400_000) < 8_000  # splitting leaves a token here and there
    assert work["num_rows"] * 512 * work["fill"] == pytest.approx(work["num_tokens"])
    assert work["fill"] > 0.97
    assert told["rows_per_step"] == 8
    assert work["steps_per_epoch"] == -(-work["num_rows"] // 8)
    assert told["num_steps"] == 2 * work["steps_per_epoch"]
    assert told["num_tokens"] == pytest.approx(2 * work["num_tokens"])
    per_second = told["share_of_peak"] * 312e12 / told["flops_per_token"]
    assert told["tokens_per_second_per_gpu"] == pytest.approx(per_second)
    assert told["hours"] == pytest.approx(told["num_tokens"] / (2 * per_second) / 3600)
    for price in told["dollars"]:
        assert price["total"] == pytest.approx(2 * told["hours"] * price["dollars"])
    assert told["needed_bytes"] == sum(told["memory"].values()) <= told["available_bytes"]


def test_records_are_counted_as_the_run_will_pack_them(
    make_options: MakeOptions, tiny_model: Path, records_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"  # no weights at hand
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    plan = make_plan(PlanOptions(model=bare, data=(records_file,), max_length=256, gpu="l4", num_train_epochs=1.0))
    assert plan.workload is not None
    train(make_options(num_train_epochs=1.0, max_steps=None))
    said = capsys.readouterr().err
    work = plan.workload
    assert f"{work.num_tokens:,} tokens, {work.num_supervised_in_all:,} of them" in said
    assert f"{work.num_rows:,} rows of 256" in said
    assert f"{plan.num_steps:,} in all" in said


def test_the_command_prints_the_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--plan", "--model-shape", "SmolLM2-135M", "--gpu", "h100-80gb:4", "--num_conversations", "2000"]
    arguments += ["--num-tokens", "1000000", "--price-per-gpu-hour", "2.5", "--max-length", "512"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for part in ("weights", "gradients", "optimizer", "activations", "communication", "loss", "reserve", "in all"):
        assert f"  {part} " in out
    assert "989 TFLOP/s x " in out and "tokens / (" in out and "GPU hours x $2.50 = $" in out
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_gpus"] == 4
    assert [price["dollars"] for price in told["dollars"]] == [2.5]
    assert main([*arguments, "--tokens-per-second", "5000"]) == 0
    assert "(5,000 tokens/s x 4)" in capsys.readouterr().out


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--model-shape", "smollm2-135m", "--gpu", "l40s", "--max-length", "256"]) == 0
    assert "tokens, hours and dollars: give --data" in capsys.readouterr().out
    arguments = ["--plan", "--model-shape", "smollm2-135m", "--gpu", "l40s", "--max-length", "256"]
    assert main([*arguments, "--num-conversations", "10", "--num-tokens", "1000"]) == 0
    out = capsys.readouterr().out
    assert "assumed; no published speed is known here" in out
    assert "no price of l40s is known; give --price-per-gpu-hour" in out
    assert main(["--plan", "--model-shape", "smollm2-135m", "--device", "cpu", "--max-length", "256"]) == 0
    assert "on 1 x CPU" in capsys.readouterr().out


def test_an_adapter_is_planned_and_offered() -> None:
    shape: dict[str, Any] = {"model_shape": "smollm2-1-7b", "max_length": 256, "gpu": "rtx-4090", **EPOCH}
    adapter = make_plan(PlanOptions(**shape, lora=True))
    quantized = make_plan(PlanOptions(**shape, qlora=True))  # without a GPU, and without what quantizes
    assert adapter.size.num_trained < 0.02 * adapter.size.num_weights
    assert adapter.fit.memory.parts["optimizer"] < adapter.fit.memory.parts["weights"] / 10
    assert quantized.fit.memory.parts["weights"] < adapter.fit.memory.parts["weights"] / 2
    whole = measure_model(get_shape("smollm2-1-7b"), PlanOptions(**shape)).flops
    # Frozen matrices take no gradient of their own: 4 operations a token instead of 6, and a little for the adapter.
    for plan in (adapter, quantized):
        assert 4 / 6 < plan.size.flops.per_token / whole.per_token < 4 / 6 + 0.03
    offered = [words for _, words in fit._other_settings(PlanOptions(**shape), fit.Hardware(Gpu("small", GIB)))]
    assert offered == ["--cpu-offload", "--lora", "--qlora"]
