"""Generations are what the exported model answers, on one rank and on two, after a restart too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.rounding import greedy_replies
from tests.train.builders import TEMPLATE, MakeOptions, make_records, read_generations, write_records
from tests.train.launch import on_ranks
from vicuna.conversation import Message, encode_prompt, get_template, stop_token_ids
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
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
    assert_greedy(options.model, found[:2], max_new_tokens=7)
    assert_greedy(options.output_dir / "model", found[-2:], max_new_tokens=7)


def assert_greedy(folder: Path, generations: list[JsonObject], *, max_new_tokens: int) -> None:
    """Each is one of the replies that the model in this folder may give by transformers' own generation."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    template, tokenizer = get_template(TEMPLATE), AutoTokenizer.from_pretrained(folder)
    ends = stop_token_ids(template, tokenizer)
    for generation in generations:
        ids = encode_prompt([Message("user", generation["prompt"])], template, tokenizer)
        replies = greedy_replies(model, list(ids), max_new_tokens, end_ids=ends)
        texts = [tokenizer.decode(reply, skip_special_tokens=True).strip() for reply in replies]
        assert generation["reply"].strip() in texts
        assert len(texts) < 4  # or the margin would mean nothing


def test_ranks_answer_together(make_options: MakeOptions, tmp_path: Path) -> None:
    records = make_records(3, seed=5)
    prompts = write_records(tmp_path / "prompts.jsonl", records)
    shape: dict[str, Any] = {"sample_prompts": prompts, "num_samples": 2, "sample_tokens": 5, "rows_per_step": 2}
    one = make_options(output_dir=tmp_path / "one", **shape)
    two = make_options(output_dir=tmp_path / "two", **shape)
    train(one)
    assert on_ranks(2, lambda _: train(two)) == [0, 0]
    for options in (one, two):
        found = read_generations(options)
        assert [(generation["step"], generation["prompt"]) for generation in found] == [
            (step, record["messages"][0]["content"]) for step in (0, 6) for record in records[:2]
        ]
        assert_greedy(options.model, found[:2], max_new_tokens=5)
        assert_greedy(options.output_dir / "model", found[2:], max_new_tokens=5)


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
