"""Generations are what the exported model answers, on one rank and on two, after a restart too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train.builders import TEMPLATE, MakeOptions, make_records, read_generations, write_records
from tests.train.launch import on_ranks
from vicuna.conversation import Message, encode_prompt, get_template
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.save.checkpoint import whole_checkpoints


def test_samples_are_what_the_model_would_answer(make_options: MakeOptions, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hello world\n\nimport path\n")
    options = make_options(sample_prompts=prompts, sample_tokens=7, eval_steps=3, learning_rate=5e-3)
    train(options)
    found = read_generations(options)
    assert [(generation["step"], generation["prompt"]) for generation in found] == [
        (step, prompt) for step in (0, 3, 6) for prompt in ("hello world", "import path")
    ]
    exported = AutoModelForCausalLM.from_pretrained(options.output_dir / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.output_dir / "model")
    for generation in found[-2:]:
        ids = encode_prompt([Message("user", generation["prompt"])], get_template(TEMPLATE), tokenizer)
        output = exported.generate(torch.tensor([ids]), max_new_tokens=7, do_sample=False)[0, len(ids) :]
        assert tokenizer.decode(output, skip_special_tokens=True).strip() == generation["reply"].strip()


def test_ranks_answer_together(make_options: MakeOptions, tmp_path: Path) -> None:
    prompts = write_records(tmp_path / "prompts.jsonl", make_records(3, seed=5))
    shape: dict[str, Any] = {"sample_prompts": prompts, "num_samples": 2, "sample_tokens": 5, "rows_per_step": 2}
    one = make_options(output_dir=tmp_path / "one", bf16=False, **shape)
    two = make_options(output_dir=tmp_path / "two", bf16=False, **shape)
    train(one)
    assert on_ranks(2, lambda _: train(two)) == [0, 0]
    assert read_generations(one) == read_generations(two)
    assert len(read_generations(one)) == 4  # before the first step and after the last


def test_a_resumed_run_keeps_the_samples_of_its_past_only(make_options: MakeOptions, tmp_path: Path) -> None:
    held_out = write_records(tmp_path / "held_out.jsonl", make_records(2, seed=9))
    options = make_options(eval_data=(held_out,), eval_steps=1, num_samples=1, sample_tokens=2, max_steps=4)
    train(options)
    whole = read_generations(options)
    for path in (options.output_dir / "model", whole_checkpoints(options.output_dir)[-1]):
        path.rename(tmp_path / path.name)
    kept = len(whole_checkpoints(options.output_dir))
    train(options)
    assert read_generations(options) == whole
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
