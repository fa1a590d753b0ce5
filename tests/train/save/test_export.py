"""The exported model is the trained one, with names, dtypes, files and tokenizer of its base."""

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train.builders import TEMPLATE, MakeOptions, assert_same_training, losses, save_llama, save_qwen, weights
from tests.train.launch import on_ranks, train_on_ranks
from vicuna.conversation import Message, encode_prompt, get_template, load_template, stop_token_ids
from vicuna.errors import VicunaError
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.save import export
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.save.export import export_model


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

    kept: list[torch.Tensor] = []
    batch = dataset.batch([(0,)])

    def keep_logits(model: Any, *arguments: Any, **keywords: Any) -> None:
        with torch.no_grad():
            kept.append(model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T)
        export_model(model, *arguments, **keywords)

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


def test_a_disk_that_is_full_for_one_rank_at_the_export_loses_no_step(
    make_options: MakeOptions,
    tmp_path: Path,
    bpe_tokenizer_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = save_qwen(tmp_path / "qwen", bpe_tokenizer_directory)
    options = make_options(model=base, max_steps=2, save_steps=0)

    def work(rank: int) -> None:
        def full(folder: Path, shards: Any, _: Any, data_of: Any) -> Any:
            next(iter(data_of(shards[0].tensors[0])))  # some of it has been written
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

        if rank == 1:
            monkeypatch.setattr(export, "write_checkpoint", full)
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
    clean = make_options(output_dir=tmp_path / "clean", model=base, max_steps=2, save_steps=0, rows_per_step=2)
    train(clean)
    assert_same_training(options, clean)
