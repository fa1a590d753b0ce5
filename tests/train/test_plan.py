"""The plan of a run as the command prints it: figures that follow from one another, and refusals with a way out."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import make_records, write_records
from vicuna.errors import VicunaError
from vicuna.train.__main__ import main
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.planner import fit, preflight
from vicuna.train.planner.estimate import MemoryEstimate, Setting
from vicuna.train.planner.hardware import GIB, Gpu, get_gpu, get_published_speeds, get_shape
from vicuna.train.planner.options import PlanOptions
from vicuna.train.planner.report import make_plan
from vicuna.train.planner.speed import measure_model

MakeOptions = Callable[..., TrainOptions]
SMALL: dict[str, Any] = {"model_shape": "smollm2-135m", "gpu": "a100-80gb:2", "max_length": 512}
EPOCH = {"num_conversations": 1000, "num_tokens": 400_000}


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


def test_the_share_of_the_peak_is_the_published_one() -> None:
    """llm-foundry's 13B on A100s: its speed comes back for its own model and lengths."""
    plan = make_plan(
        PlanOptions(
            model_shape="llama-13b",
            gpu="a100-80gb:8",
            num_conversations=1000,
            num_tokens=1000 * 2048 * 100,  # nearly all rows are whole documents of 2,048
            supervised_share=1.0,
            activation_checkpointing="none",
        )
    )
    assert plan.speed is not None
    assert plan.speed.tokens_per_second == pytest.approx(2262, rel=0.01)
    assert "llm-foundry" in plan.speed.reason


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


def test_a_run_that_cannot_fit_is_refused_with_what_fits() -> None:
    shape: dict[str, Any] = {"model_shape": "smollm2-1-7b", "max_length": 1024}
    with pytest.raises(VicunaError, match=r"does not fit on 1 x rtx-4090: it takes [\d.]+ GiB of 23.5") as caught:
        make_plan(PlanOptions(**shape, gpu="rtx-4090"))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 1
    assert "--cpu-offload (" in message
    number = int(message.split(" of these GPUs")[0].split()[-1])
    assert make_plan(PlanOptions(**shape, gpu=f"rtx-4090:{number}")).fit.is_possible
    assert make_plan(PlanOptions(**shape, gpu="rtx-4090", cpu_offload=True)).fit.is_possible


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


def test_the_fastest_checkpointing_that_fits_is_chosen(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"none": 50, "selective": 30, "full": 10}

    def estimate(_config: Any, _options: Any, setting: Setting) -> MemoryEstimate:
        return MemoryEstimate({"activations": sizes[setting.activation_checkpointing] * GIB}, "forward", 5 * GIB)

    def chosen(gib: int, **changes: Any) -> tuple[str, bool]:
        hardware = fit.Hardware(Gpu("some", gib * GIB))
        found = fit.find_fit(get_shape("llama-7b"), make_options(**changes), hardware, step)
        return found.checkpointing, found.is_possible

    monkeypatch.setattr(fit, "estimate_memory", estimate)
    step = fit.MicroBatch((512,), 512, False, True)
    assert chosen(60) == ("none", True)
    assert chosen(40) == ("selective", True)
    assert chosen(20) == ("full", True)
    assert chosen(8) == ("full", False)
    assert chosen(40, compile=True) == ("full", True)
    assert chosen(40, activation_checkpointing="none") == ("none", False)
    assert chosen(4) == (
        "none",
        False,
    )  # weights, gradients and optimizer alone are more than that: nothing else is tried


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model DIR or --model-shape NAME, one of the two"),
        (["--model-shape", "llama-13", "--gpu", "l4"], "--model-shape llama-13: .*did you mean 'llama-13b'"),
        (["--model-shape", "llama-7b", "--gpu", "a100:8"], "--gpu a100: not a GPU that is known here"),
        (["--model-shape", "llama-7b", "--gpu", "l4:x"], "--gpu l4:x: give a kind and a number"),
        (["--model-shape", "llama-7b", "--num-tokens", "5"], "--num-conversations and --num-tokens go together"),
        (["--model-shape", "llama-7b", "--data", "x.jsonl"], "counted with the tokenizer of --model DIR"),
        (["--model", "missing", "--gpu", "l4"], "missing"),
        (["--model-shape", "llama-7b", "--supervised-share", "2"], "--supervised-share 2.0 must be"),
        (["--model-shape", "llama-7b", "--num-conversations", "9", "--num-tokens", "9"], "less than two for each"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    import re

    assert main(["--plan", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error


def test_a_run_says_what_it_will_take_and_is_refused_where_it_cannot_fit(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "ROOMY", 0.0)
    data = write_records(tmp_path / "data.jsonl", make_records(30))
    train(make_options(output_dir=tmp_path / "roomy", data=(data,)))
    assert "activation checkpointing: none" in capsys.readouterr().err
    monkeypatch.setattr(preflight, "hardware_here", _tight)
    monkeypatch.setattr(fit, "HOST_BYTES", 0)
    with pytest.raises(VicunaError, match=r"does not fit on 1 x CPU: it takes 0.0 GiB of 0.0"):
        train(make_options(data=(data,)))
    assert not (tmp_path / "out" / "train_log.jsonl").exists()


def _tight(*_: Any) -> fit.Hardware:
    return fit.Hardware(Gpu("CPU", 1 << 20), 1, "cpu")


def test_planning_needs_no_torch_until_the_flags_are_good() -> None:
    check = "import sys; from vicuna.train.__main__ import main; code = main({}); print(code, 'torch' in sys.modules)"
    for arguments, expected in ((["--plan", "--help"], "0 False"), (["--plan"], "2 False")):
        done = subprocess.run([sys.executable, "-c", check.format(arguments)], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == expected


def test_a_config_file_cannot_turn_a_run_into_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("plan = true\n")
    arguments = ["--model", "m", "--data", "d.jsonl", "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--config", str(tmp_path / "run.toml")]) == 2
    assert "--plan is a flag of the command line" in capsys.readouterr().err


def test_every_gpu_and_mark_is_whole() -> None:
    for mark in get_published_speeds():
        assert get_gpu(mark.gpu).peak_flops
        assert get_shape(mark.shape).num_hidden_layers
    gpu = get_gpu("A100-80GB")
    assert 79 * GIB < gpu.memory_bytes < 80 * GIB
    assert [price.dollars for price in gpu.prices] == sorted(price.dollars for price in gpu.prices)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-7b", 6.738), ("llama-13b", 13.016), ("llama-3-8b", 8.030), ("qwen2-5-7b", 7.616), ("mistral-7b", 7.242)],
)
def test_shapes_have_the_published_number_of_weights(make_options: MakeOptions, name: str, billions: float) -> None:
    assert measure_model(get_shape(name), make_options()).num_weights / 1e9 == pytest.approx(billions, abs=0.001)
