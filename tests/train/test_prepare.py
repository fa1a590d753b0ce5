"""What a run needs is checked before its first step, and what cannot be used is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tests.train.builders import MakeOptions, save_llama
from tests.train.launch import on_ranks
from vicuna.conversation import get_template, load_template
from vicuna.errors import UsageError, VicunaError
from vicuna.train.loop import train
from vicuna.train.model import conversation_model
from vicuna.train.options import TrainOptions
from vicuna.train.prepare import choose_rows_per_step, prepare, shares_prefix
from vicuna.train.ranks import Ranks


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
def test_where_a_shared_prefix_is_computed_once(
    make_options: MakeOptions, changes: dict[str, Any], device: str, expected: bool
) -> None:
    assert shares_prefix(make_options(**changes), device) is expected


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub(make_options: MakeOptions) -> None:
    with pytest.raises(VicunaError, match=r"nobody/nothing is no folder and .* HF_HUB_OFFLINE is set"):
        train(make_options(model=Path("nobody/nothing")))


def test_a_model_states_its_template(make_options: MakeOptions, tmp_path: Path) -> None:
    first = make_options(template="chatml")
    train(first)
    second = make_options(model=first.output_dir / "model", output_dir=tmp_path / "second")
    train(second)
    assert load_template(second.output_dir / "model") == get_template("chatml")


def refusals() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"model": "missing"}, "missing: no such folder; give a folder, OWNER/NAME"),
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
    ("name", "content", "message"),
    [
        ("generation_config.json", "[", "generation_config.json:1:2: not JSON"),
        ("generation_config.json", "[]", "holds a list, not a JSON object"),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}', "config.json: hidden_size is .x."),
        ("model.safetensors", "", "0 bytes cannot hold its header"),
    ],
)
def test_a_damaged_base_is_refused_before_the_first_step(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, name: str, content: str, message: str
) -> None:
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory)
    (base / name).write_text(content)
    with pytest.raises(VicunaError, match=message) as caught:
        train(make_options(model=base))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "train_log.jsonl").exists()


def test_offload_on_a_cpu_is_refused(make_options: MakeOptions) -> None:
    with pytest.raises(UsageError, match=r"--cpu-offload moves what a GPU holds .* this run is on a CPU"):
        train(make_options(cpu_offload=True))


def test_several_ranks_without_sharding_are_refused(make_options: MakeOptions) -> None:
    def work(_: int) -> None:
        with pytest.raises((UsageError, SystemExit), match=r"--fsdp off: 2 ranks share one model|2"):
            train(make_options(fsdp="off"))

    assert on_ranks(2, work) == [0, 0]


def test_the_config_of_the_base_is_read_once(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a whole run: what reads it again may read another one."""
    read: list[Path] = []

    class Counted:
        @staticmethod
        def from_pretrained(path: Path, **keywords: Any) -> Any:
            read.append(path)
            return AutoConfig.from_pretrained(path, **keywords)

    monkeypatch.setattr(conversation_model, "AutoConfig", Counted)
    options = make_options(max_steps=1)
    train(options)
    assert read == [options.model]


def test_a_run_knows_its_rows_steps_and_schedule(make_options: MakeOptions) -> None:
    run = prepare(make_options(num_train_epochs=2.0, max_steps=None, gradient_accumulation_steps=3), Ranks())
    assert run.epochs.rows_per_step == 3
    assert run.num_steps == run.schedule.num_steps == 2 * run.epochs.steps_per_epoch
    assert (run.template.name, run.config.model_type) == ("vicuna_v1.1", "llama")
    assert run.identity["rows_per_step"] == 3
    assert not run.is_sharded and run.held_out is None and run.prompts == []


def test_a_resumed_run_keeps_its_rows_per_step(make_options: MakeOptions) -> None:
    def rows(options: TrainOptions) -> int:
        return choose_rows_per_step(options, Ranks(size=4))

    options = make_options(gradient_accumulation_steps=2, max_steps=1)
    assert rows(options) == 8
    train(options)  # on one rank
    assert rows(options) == 2
    assert rows(make_options(gradient_accumulation_steps=2, overwrite_output_dir=True)) == 8
    assert rows(make_options(rows_per_step=5)) == 5
