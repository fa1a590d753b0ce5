"""Inputs of a wanted size for the growth rows: text, conversations, tokenizers, models and judgments, all seeded."""

import functools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.weights.builders import write_model
from vicuna.conversation import Message, load_tokenizer
from vicuna.conversation.tokenizer import Tokenizer

Json = dict[str, Any]
WORDS = tuple(
    f"{first}{second}"
    for first in ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo")
    for second in ("n", "ster", "ll", "m", "nd", "rt", "w", "ching")
)
HIDDEN = 256


def prose(num_words: int, seed: int = 0) -> str:
    """Words in sentences and paragraphs."""
    draw = random.Random(seed)
    words = draw.choices(WORDS, k=num_words)
    return "".join(
        f"{word}{'.' + chr(10) * 2 if place % 60 == 59 else '.' if place % 12 == 11 else ''} "
        for place, word in enumerate(words)
    )


def turns(num_rounds: int, words_each: int = 20, seed: int = 0) -> list[Message]:
    """A conversation of questions and answers, each another."""
    words = prose(2 * num_rounds * words_each, seed).split()
    texts = (" ".join(words[start : start + words_each]) for start in range(0, len(words), words_each))
    return [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


def conversation(name: str, messages: Sequence[Message]) -> Json:
    """The row of a conversation, in the shape of OpenAI."""
    return {"id": name, "messages": [{"role": message.role, "content": message.content} for message in messages]}


def records(count: int, num_rounds: int = 2, words_each: int = 40) -> Iterator[Json]:
    """Conversations, no two alike."""
    for number in range(count):
        yield conversation(f"r{number}", turns(num_rounds, words_each, seed=number))


def pages(count: int) -> Iterator[Json]:
    """Conversations in the shape of ShareGPT, whose answers are HTML."""
    for number in range(count):
        answer = prose(60, number)
        html = f"<p>{answer}</p><ul><li>one {number}</li><li><b>two</b></li></ul><pre><code>x = {number}</code></pre>"
        question = prose(12, number + 1_000_000)
        yield {"id": f"p{number}", "conversations": [_turn("human", question), _turn("gpt", html)]}


def _turn(role: str, text: str) -> Json:
    return {"from": role, "value": text}


def write_lines(path: Path, rows: Iterable[Json]) -> Path:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def write_array(path: Path, rows: Iterable[Json]) -> Path:
    """Rows as one JSON array."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(("," if number else "[") + json.dumps(row))
        file.write("]")
    return path


# Tokenizers, one of each kind, made once by the parent of all measured processes.


@functools.cache
def tokenizer_folder(kind: str) -> Path:
    """The folder of a small tokenizer: `sentencepiece` (LLaMA's kind) or `bytes` (byte-level BPE, with a template)."""
    import atexit
    import os
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="vicuna-growth-tokenizer-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and not a forked process that ends
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    if kind == "sentencepiece":
        _sentencepiece(folder)
    else:
        _byte_level(folder)
    return folder


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    """The tokenizer of that folder."""
    return load_tokenizer(tokenizer_folder(kind))


def _sentencepiece(folder: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        # Line by line: pieces with a line end inside are nothing that LLaMA's tokenizers have.
        sentence_iterator=iter([line for seed in range(40) for line in prose(200, seed).splitlines() if line.strip()]),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        num_threads=1,
        vocab_size=450,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _byte_level(folder: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Fast(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([prose(200, seed) for seed in range(20)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    fast.save_pretrained(folder)


# Models


def llama_shapes(num_layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LLaMA of `num_layers` layers, 1.1 million numbers a layer."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (512, HIDDEN)}
    for layer in range(num_layers):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{start}mlp.{name}_proj.weight": (4 * HIDDEN, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (HIDDEN, 4 * HIDDEN)}
        shapes |= {f"{start}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (512, HIDDEN)}


def write_llama(folder: Path, num_layers: int, seed: int = 0) -> Path:
    """A model of that many layers in fp16, with a tokenizer; another seed is another fine-tune of the same base."""
    draw, step = np.random.default_rng(0), np.random.default_rng(seed)
    weights = {}
    for name, shape in llama_shapes(num_layers).items():
        numbers = draw.standard_normal(shape, np.float32) * np.float32(0.02) + np.float32("norm" in name)
        weights[name] = numbers + step.standard_normal(shape, np.float32) * np.float32(2e-4) if seed else numbers
    write_model(folder, weights)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for path in tokenizer_folder("bytes").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def write_many_tensors(folder: Path, count: int, seed: int = 0) -> Path:
    """A model of `count` small tensors: what a tensor costs beside its bytes."""
    draw = np.random.default_rng(seed)
    write_model(folder, {f"model.layers.{n}.mlp.up_proj.weight": draw.random((4, 8), np.float32) for n in range(count)})
    return folder


# Judgments


def judgments(count: int, models: Sequence[str] = ("apple", "birch")) -> Iterator[Json]:
    """Rows of pairwise judgments, four for each question: two judges, both orders."""
    draw = random.Random(5)
    for number in range(count):
        question, slot = divmod(number, 4)
        order = 1 + slot % 2
        winner = draw.choice(["model_1", "model_2", "tie"])
        yield {
            "question_id": question,
            "category": f"category {question % 8}",
            "status": "scored",
            "mode": "pair",
            "repeat": 0,
            "turn": 1,
            "prompt_hash": "0" * 64,
            "cut_answers": [],
            "usage": {"prompt_tokens": 400, "completion_tokens": 40},
            "model_1": models[0],
            "model_2": models[1],
            "judge": [f"sage-{slot // 2}", "pair-1"],
            "order": order,
            f"g{order}_winner": winner,
            f"g{order}_judgment": f"Since it says more, {winner}. {prose(30, question)}",
            "key": f"k{number}",
        }
