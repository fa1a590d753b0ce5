"""A run on the tiny model: what a step does, what is logged, what comes out, and how it ends when it must."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train.conftest import TEMPLATE, make_records, save_llama, write_records
from vicuna.conversation import Message, encode_prompt, get_template, load_template, stop_token_ids
from vicuna.errors import UsageError, VicunaError
from vicuna.train.__main__ import main
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.prepare import shares_prefix

MakeOptions = Callable[..., TrainOptions]


def log_rows(options: TrainOptions) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (options.output_dir / "train_log.jsonl").read_text().splitlines()]


def losses(options: TrainOptions) -> list[float]:
    return [row["loss"] for row in log_rows(options) if "loss" in row]


def weights(options: TrainOptions) -> dict[str, torch.Tensor]:
    return dict(
        AutoModelForCausalLM.from_pretrained(options.output_dir / "model", dtype=torch.float32).named_parameters()
    )


def test_learning_lowers_the_held_out_loss(make_options: MakeOptions, tmp_path: Path) -> None:
    held_out = write_records(tmp_path / "held_out.jsonl", make_records(4, seed=9))
    options = make_options(eval_data=(held_out,), eval_steps=10, max_steps=30, learning_rate=5e-3)
    result = train(options)
    assert result.model == options.output_dir / "model"
    measured = {row["step"]: row["eval_loss"] for row in log_rows(options) if "eval_loss" in row}
    assert list(measured) == [0, 10, 20, 30]
    assert measured[30] < 0.8 * measured[0]
    rows = [row for row in log_rows(options) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert {"learning_rate", "grad_norm", "tokens", "supervised_tokens", "tokens_per_second", "epoch"} <= set(rows[0])
    assert (options.output_dir / "loss.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("per_device", [1, 2, 4])
def test_a_step_does_not_depend_on_how_it_is_cut(make_options: MakeOptions, tmp_path: Path, per_device: int) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(40))
    shape = {"data": (data,), "max_length": 200, "max_steps": 2, "save_steps": 0}
    whole = make_options(**shape, output_dir=tmp_path / "whole", per_device_train_batch_size=8)
    cut = make_options(
        **shape,
        output_dir=tmp_path / "cut",
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=8 // per_device,
    )
    train(whole)
    train(cut)
    assert losses(whole) == pytest.approx(losses(cut), rel=1e-5)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weight, weights(cut)[name], rtol=1e-4, atol=1e-5)


def test_a_beginning_computed_once_gives_the_same_run(make_options: MakeOptions, tmp_path: Path) -> None:
    data = write_records(tmp_path / "records.jsonl", make_records(40))
    shape = {"data": (data,), "max_length": 200, "row_length": 800, "max_steps": 5, "save_steps": 0}
    once, each = (
        make_options(**shape, output_dir=tmp_path / share, share_prefix=share, eval_data=(data,))
        for share in ("auto", "off")
    )
    train(once)
    train(each)
    assert losses(once) == pytest.approx(losses(each), rel=1e-5)
    rows = [[row for row in log_rows(options) if "loss" in row] for options in (once, each)]
    for one, other in zip(*rows, strict=True):
        assert (one["tokens"], one["supervised_tokens"]) == (other["tokens"], other["supervised_tokens"])
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    measured = [[row["eval_loss"] for row in log_rows(options) if "eval_loss" in row] for options in (once, each)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "device", "expected"),
    [
        ({}, "cpu", True),
        ({}, "cuda", False),
        ({"share_prefix": "on"}, "cuda", True),
        ({"share_prefix": "off"}, "cpu", False),
        ({"lora": True, "lora_dropout": 0.1}, "cpu", False),
    ],
)
def test_where_a_beginning_is_computed_once(
    make_options: MakeOptions, changes: dict[str, Any], device: str, expected: bool
) -> None:
    assert shares_prefix(make_options(**changes), device) is expected


def test_the_export_is_the_trained_model(make_options: MakeOptions, model: Any) -> None:
    options = make_options()
    train(options)
    exported = weights(options)
    assert any(not torch.equal(weight, exported[name]) for name, weight in model.named_weights().items())
    checkpoint = options.output_dir / "checkpoints/step-00000004/model-0-of-1.safetensors"
    assert checkpoint.is_file()

    folder = options.output_dir / "model"
    base = options.model
    for name in ("config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    assert load_template(folder) == get_template(TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "hello"}]
    ours = encode_prompt([Message("user", "hello")], get_template(TEMPLATE), tokenizer)
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(ours, clean_up_tokenization_spaces=False) == rendered
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert stop_token_ids(get_template(TEMPLATE), tokenizer) <= set(stops if isinstance(stops, list) else [stops])
    assert json.loads((folder / "train_config.json").read_text())["learning_rate"] == options.learning_rate
    assert (folder / "train_log.jsonl").read_text() == (options.output_dir / "train_log.jsonl").read_text()


def test_exported_logits_are_identical_to_the_trained_ones(
    make_options: MakeOptions, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vicuna.train import loop

    kept: list[torch.Tensor] = []
    batch = dataset.batch([(0,)])
    export = loop.export_model

    def keep_logits(model: Any, *arguments: Any, **keywords: Any) -> None:
        with torch.no_grad():
            kept.append(model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T)
        export(model, *arguments, **keywords)

    monkeypatch.setattr(loop, "export_model", keep_logits)
    options = make_options()
    train(options)
    exported = AutoModelForCausalLM.from_pretrained(options.output_dir / "model", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(exported(batch.input_ids).logits[0], kept[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_dtype_and_tensors_of_the_base_are_kept(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, tied: bool
) -> None:
    from safetensors.torch import load_file

    base = save_llama(
        tmp_path / "base",
        bpe_tokenizer_directory,
        dtype=torch.bfloat16,
        tie_word_embeddings=tied,
        num_key_value_heads=4,
    )
    options = make_options(model=base, learning_rate=1e-2)
    train(options)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, options.output_dir / "model"))
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {n: (t.dtype, t.shape) for n, t in before.items()}
    assert all(not torch.equal(before[name], after[name]) for name in before if "norm" not in name)


def test_a_tied_head_that_is_stored_is_exported_trained(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, tie_word_embeddings=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    options = make_options(model=base)
    train(options)
    exported = load_file(options.output_dir / "model/model.safetensors")
    assert not torch.equal(exported["lm_head.weight"], tensors["lm_head.weight"])
    assert torch.equal(exported["lm_head.weight"], exported["model.embed_tokens.weight"])


def test_a_base_in_the_old_format_is_trained_and_exported_as_safetensors(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    from safetensors.torch import load_file

    base = save_llama(tmp_path / "base", bpe_tokenizer_directory)
    tensors = load_file(base / "model.safetensors")
    torch.save(tensors, base / "pytorch_model.bin")
    (base / "model.safetensors").rename(tmp_path / "model.safetensors")
    old, new = make_options(model=base), make_options(output_dir=tmp_path / "new")
    train(old)
    train(new)
    assert losses(old) == losses(new)
    exported = load_file(old.output_dir / "model/model.safetensors")
    assert exported.keys() == tensors.keys()
    assert all(torch.equal(weight, exported[name]) for name, weight in weights(new).items())
    other = make_options(model=base, resume="auto")
    (base / "pytorch_model.bin").rename(base / "other")
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, base / "pytorch_model.bin")
    with pytest.raises(VicunaError, match="model is another"):
        train(other)


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub(make_options: MakeOptions) -> None:
    with pytest.raises(VicunaError, match="nobody/nothing is not in the hub's cache, and HF_HUB_OFFLINE is set"):
        train(make_options(model=Path("nobody/nothing")))


def test_a_base_whose_weights_have_other_names_is_refused_before_training(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, tie_word_embeddings=True)
    tensors = {name.removeprefix("model."): t for name, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(VicunaError, match=r"stores .* under another name"):
        train(make_options(model=base))


def test_other_programs_read_the_tokens_of_a_bare_sentencepiece_model(
    make_options: MakeOptions, tmp_path: Path, sentencepiece_tokenizer: Any
) -> None:
    from sentencepiece import SentencePieceProcessor

    base = save_llama(tmp_path / "base", Path(sentencepiece_tokenizer.name_or_path))
    assert not (base / "tokenizer.json").exists()
    train(make_options(model=base, max_steps=1))
    made = tmp_path / "out" / "model"
    processor = SentencePieceProcessor(model_file=str(made / "tokenizer.model"))
    text = (
        "a  b\n    return  x"  # transformers 5 orders the merges of spaces wrongly when it has `tokenizer.model` alone
    )
    tokenizer = AutoTokenizer.from_pretrained(made)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == processor.encode(text)
    bare = AutoTokenizer.from_pretrained(base)
    assert bare(text, add_special_tokens=False)["input_ids"] != processor.encode(text), "no longer needed"


def test_the_hf_template_stays_the_tokenizers_own(make_options: MakeOptions) -> None:
    options = make_options(template="hf")
    train(options)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (options.model, options.output_dir / "model")]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert load_template(options.output_dir / "model") == get_template("hf")


def test_a_model_states_its_template(make_options: MakeOptions, tmp_path: Path) -> None:
    first = make_options(template="chatml")
    train(first)
    second = make_options(model=first.output_dir / "model", output_dir=tmp_path / "second")
    train(second)
    assert load_template(second.output_dir / "model") == get_template("chatml")


def test_weight_decay_is_for_matrices_only(make_options: MakeOptions, model: Any) -> None:
    from vicuna.train.optim.optimizer import make_optimizer

    groups = make_optimizer(model, make_options(weight_decay=0.1)).param_groups
    assert {weight.ndim >= 2: group["weight_decay"] for group in groups for weight in group["params"]} == {
        True: 0.1,
        False: 0.0,
    }
    assert sum(len(group["params"]) for group in groups) == len(model.named_weights())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_records(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
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
    options = make_options(model=base, data=(data,), gradient_accumulation_steps=6)
    with pytest.raises(VicunaError, match=r"the loss of step 1 is not finite; its records: .*record-3") as caught:
        train(options)
    assert str(caught.value).count("record-") < 6  # only the micro-batch with the broken loss is named
    assert not (options.output_dir / "model").exists()


def refusals() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"model": "missing"}, "--model .*missing: no such directory"),
        ({"model": "empty"}, "has no config.json"),
        ({"model": "gpt2"}, "is a 'gpt2' model"),
        ({"model": "no-tokenizer"}, "has no tokenizer"),
        ({"model": "delta"}, "is a delta, not a model"),
        ({"data": ("missing.jsonl",)}, "missing.jsonl: no such file"),
        ({"template": "vicuna"}, "did you mean 'vicuna_v"),
        ({"device": "cuda:99"}, "--device cuda:99: this machine has"),
        ({"device": "tpu"}, "--device tpu is"),
    ]


@pytest.mark.parametrize(("changes", "message"), refusals())
def test_what_cannot_be_used_is_refused_in_one_line(
    make_options: MakeOptions,
    tmp_path: Path,
    bpe_tokenizer_directory: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2/config.json").write_text('{"model_type": "gpt2"}')
    bare = save_llama(tmp_path / "no-tokenizer", bpe_tokenizer_directory)
    for file in bare.glob("*token*"):
        file.unlink()
    delta = save_llama(tmp_path / "delta", bpe_tokenizer_directory)
    _subtract_itself(delta)
    changes = {
        name: tmp_path / value
        if name == "model"
        else tuple(tmp_path / item for item in value)
        if name == "data"
        else value
        for name, value in changes.items()
    }
    options = make_options(**changes)
    with pytest.raises(VicunaError, match=message) as caught:
        train(options)
    assert "\n" not in str(caught.value)
    assert not options.output_dir.exists()


def _subtract_itself(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: t * 0.001 for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def test_a_conversation_longer_than_the_models_positions(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, max_position_embeddings=16)
    with pytest.raises(VicunaError, match="only 16 positions; use --max-length 16"):
        train(make_options(model=base))


def test_a_tokenizer_of_another_model(make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path) -> None:
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, vocab_size=700)
    with pytest.raises(VicunaError, match=r"gives token \d+, but the model has 700 words"):
        train(make_options(model=base))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "--learning-rate 0.0 must be more than 0"),
        ({"max_steps": 0}, "--max-steps 0 must be at least 1"),
        ({"row_length": 10}, "--row-length 10 must be at least --max-length"),
        ({"eval_steps": 5}, "--eval-steps 5 must be used together with --eval-data"),
        ({"warmup_ratio": 1.0}, "--warmup-ratio 1.0 must be"),
        ({"lora": True, "lora_dropout": 0.1, "share_prefix": "on"}, "--share-prefix on must be auto or off together"),
    ],
)
def test_options_out_of_range(make_options: MakeOptions, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_options(**changes)


def test_the_command_prints_the_result(
    tiny_model: Path, records_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_name_or_path", str(tiny_model), "--data_path", str(records_file), "--output_dir"]
    arguments += [str(tmp_path / "out"), "--max_steps", "2", "--held-out", str(records_file)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"model: {tmp_path / 'out/model'}" in out
    assert "held-out loss: " in out
    assert main([*arguments[:-1], str(tmp_path / "missing.jsonl")]) == 1
    assert main(["--model", "x"]) == 2
