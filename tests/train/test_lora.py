"""An adapter learns and the model does not; it is saved whole, goes on after a kill, and merges into the model."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.train.conftest import make_records, write_records
from tests.train.launch import on_ranks
from tests.train.test_loop import losses
from tests.train.test_resume import train_until
from vicuna.errors import UsageError, VicunaError
from vicuna.train import loop
from vicuna.train.__main__ import main
from vicuna.train.loop import train
from vicuna.train.model.lora import is_4bit, is_adapter
from vicuna.train.options import TrainOptions
from vicuna.weights.tools.adapter import check_adapter
from vicuna.weights.tools.lora import merge_lora

MakeOptions = Callable[..., TrainOptions]
RANK = 4


@pytest.fixture
def lora_options(make_options: MakeOptions, tmp_path: Path) -> MakeOptions:
    data = write_records(tmp_path / "lora.jsonl", make_records(30))
    shape = {"data": (data,), "lora": True, "lora_r": RANK, "learning_rate": 1e-2, "rows_per_step": 4, "bf16": False}
    return lambda **changes: make_options(**(shape | changes))


def adapter_of(options: TrainOptions) -> dict[str, torch.Tensor]:
    return load_file(options.output_dir / "adapter" / "adapter_model.safetensors")


def assert_equal(one: TrainOptions, other: TrainOptions, **tolerance: float) -> None:
    expected = adapter_of(other)
    found = adapter_of(one)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **(tolerance or {"rtol": 0.0, "atol": 0.0}))


def test_only_the_adapter_learns_and_is_saved(lora_options: MakeOptions) -> None:
    options = lora_options(max_steps=15)
    base = (options.model / "model.safetensors").read_bytes()
    result = train(options)
    assert result.model == options.output_dir / "adapter"
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(result.model)
    adapter = adapter_of(options)
    assert len(adapter) == 2 * 2 * 7  # A and B, two layers, seven linear layers each
    assert all(RANK in tensor.shape for tensor in adapter.values())
    assert not (result.model / "config.json").exists()
    assert (result.model / "vicuna_template.json").is_file()
    assert (options.model / "model.safetensors").read_bytes() == base
    [checkpoint] = sorted((options.output_dir / "checkpoints").glob("step-*"))[-1:]
    saved = load_file(checkpoint / "model-0-of-1.safetensors")
    assert saved and all(is_adapter(name) for name in saved)


def test_peft_and_a_merged_model_compute_what_training_computed(
    lora_options: MakeOptions, tmp_path: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    kept: list[torch.Tensor] = []
    batch = dataset.batch([(0,)])
    export = loop.export_adapter

    def keep_logits(model: Any, *arguments: Any, **keywords: Any) -> None:
        with torch.no_grad():
            kept.append(model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T)
        export(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", keep_logits)
    options = lora_options(lora_alpha=7.0, lora_targets=("q_proj", "down_proj"))
    train(options)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    with torch.no_grad():
        plain = base(batch.input_ids).logits[0]
        by_peft = peft.PeftModel.from_pretrained(base, options.output_dir / "adapter")(batch.input_ids).logits[0]
    assert (plain - kept[0]).abs().max() > 1e-2
    torch.testing.assert_close(by_peft, kept[0], rtol=1e-4, atol=1e-4)
    merge_lora(options.model, options.output_dir / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(merged(batch.input_ids).logits[0], kept[0], rtol=1e-4, atol=1e-4)


def test_a_killed_run_ends_with_the_same_adapter(lora_options: MakeOptions, tmp_path: Path) -> None:
    changes = {"lora_dropout": 0.2, "save_steps": 1}
    whole = lora_options(output_dir=tmp_path / "whole", **changes)
    status, events = train_until(whole, None)
    assert status == 0
    for kill_at in (events // 3, 2 * events // 3):
        options = lora_options(output_dir=tmp_path / f"killed-{kill_at}", **changes)
        assert os.WIFSIGNALED(train_until(options, kill_at)[0])
        train(options)
        assert_equal(options, whole)


def test_dropout_is_drawn_again_alike_where_a_layer_is_computed_again(
    lora_options: MakeOptions, tmp_path: Path
) -> None:
    runs = [
        lora_options(output_dir=tmp_path / kind, lora_dropout=0.3, activation_checkpointing=kind, max_steps=3)
        for kind in ("none", "selective", "full")
    ]
    for options in runs:
        train(options)
        assert_equal(options, runs[0], rtol=1e-5, atol=1e-6)
    still = lora_options(output_dir=tmp_path / "still", max_steps=3)
    train(still)
    assert losses(still) != losses(runs[0])


@pytest.mark.parametrize("bf16", [False, True])
def test_two_ranks_learn_the_adapter_that_one_learns(lora_options: MakeOptions, tmp_path: Path, bf16: bool) -> None:
    one, two = (lora_options(output_dir=tmp_path / name, max_steps=4, bf16=bf16) for name in ("one", "two"))
    train(one)
    assert on_ranks(2, lambda _: train(two)) == [0, 0]
    assert losses(two) == pytest.approx(losses(one), abs=0.05 if bf16 else 1e-4)
    if not bf16:
        assert_equal(two, one, rtol=1e-2, atol=1e-4)
    check_adapter(two.output_dir / "adapter")
    # What two ranks have begun, one goes on with.
    shutil.rmtree(two.output_dir / "adapter")
    shutil.rmtree(two.output_dir / "checkpoints" / "step-00000004", ignore_errors=True)
    train(two)
    assert losses(two) == pytest.approx(losses(one), abs=0.05 if bf16 else 1e-4)


def test_what_is_frozen_is_kept_in_bfloat16_where_that_is_computed_in(
    lora_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[tuple[bool, torch.dtype]] = set()
    export = loop.export_adapter

    def look(model: Any, *arguments: Any, **keywords: Any) -> None:
        kinds.update((is_adapter(name), weight.dtype) for name, weight in model.named_weights().items())
        export(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", look)
    train(lora_options(bf16=True, max_steps=1))
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_qlora_learns_beside_a_4_bit_model(lora_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    seen: list[Any] = []
    export = loop.export_adapter

    def look(model: Any, *arguments: Any, **keywords: Any) -> None:
        seen.append(model.causal_lm)
        export(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_adapter", look)
    options = lora_options(lora=False, qlora=True, max_steps=10, bf16=True)
    train(options)
    [causal_lm] = seen
    weights = dict(causal_lm.named_parameters())
    assert sum(is_4bit(weight) for weight in weights.values()) == 2 * 7
    assert not is_4bit(causal_lm.lm_head.weight)
    layer = causal_lm.model.layers[0].mlp.down_proj.base_layer
    import bitsandbytes

    exact = load_file(options.model / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    near = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    assert (
        0.02 < (near - exact).norm() / exact.norm() < 0.25
    )  # NF4 keeps about a tenth; blocks this few have coarse scales
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(options.output_dir / "adapter")


@pytest.mark.gpu
def test_qlora_on_a_gpu(lora_options: MakeOptions) -> None:
    options = lora_options(lora=False, qlora=True, max_steps=20, device="cuda")
    train(options)
    assert losses(options)[-1] < 0.98 * losses(options)[0]
    check_adapter(options.output_dir / "adapter")


def test_an_adapter_that_learned_nothing_is_not_left_as_a_result(lora_options: MakeOptions) -> None:
    options = lora_options(learning_rate=1e-60, max_steps=1)
    with pytest.raises(VicunaError, match=r"lora_B.*is all zeros"):
        train(options)
    assert not (options.output_dir / "adapter").exists()


def test_flags_that_do_not_fit(lora_options: MakeOptions) -> None:
    with pytest.raises(UsageError, match=r"--lora-targets k_prj: .* have none; .*did you mean 'k_proj'"):
        train(lora_options(lora_targets=("q_proj", "k_prj")))
    with pytest.raises(UsageError, match="--lora-targets lm_head"):
        train(lora_options(lora_targets=("lm_head",)))
    with pytest.raises(UsageError, match="4-bit weights are not sharded"):
        train(lora_options(qlora=True, fsdp="on"))
    for name, value in (("lora_r", 0), ("lora_alpha", 0.0), ("lora_dropout", 1.0), ("lora_targets", ())):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}"):
            lora_options(**{name: value})


def test_the_command_says_where_the_adapter_is(lora_options: MakeOptions, capsys: pytest.CaptureFixture[str]) -> None:
    options = lora_options()
    arguments = ["--model", options.model, "--data", *options.data, "--output-dir", options.output_dir]
    arguments += ["--lora", "--max-steps", 2, "--learning-rate", 0.01, "--token-cache", "off"]
    for _ in range(2):  # the second finds it
        assert main([str(argument) for argument in arguments]) == 0
        assert f"adapter: {options.output_dir / 'adapter'}; vicuna weights merge-lora" in capsys.readouterr().out
