"""Rows of training: files to tokens, packing, resuming, the planner's workload, a step by row length, the curves."""

import functools
import random
from pathlib import Path

import torch

from growth_rows.inputs import records, tokenizer, tokenizer_folder, write_array, write_lines
from growth_rows.measuring import Row, Work
from tests.train.builders import save_llama
from vicuna.conversation import get_template
from vicuna.train.__main__ import main as train_main
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.encode import Examples
from vicuna.train.batches.packing import PackedEpochs, deal
from vicuna.train.batches.token_cache import TokenizedConversations, concatenate
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.planner.workload import count_workload
from vicuna.train.watch.metrics import TrainLog

CPU = torch.device("cpu")
EXAMPLES = (20_000, 80_000, 320_000)
COUNTS = (1_000, 4_000, 16_000)
STEPS = (1_000, 4_000, 16_000)


def rows() -> list[Row]:
    """All rows of the room."""
    return [
        Row("tokenize .jsonl: records", functools.partial(_tokenize, ".jsonl"), COUNTS, "records"),
        Row("tokenize .json: records", functools.partial(_tokenize, ".json"), COUNTS, "records"),
        Row("tokenize: cached tokens", _cached, COUNTS, "records"),
        Row("pack: examples", _pack, EXAMPLES, "examples"),
        Row("deal: rows of a step", _deal, (2_000, 8_000, 32_000), "rows"),
        Row("plan: workload by examples", _workload, EXAMPLES, "examples"),
        Row("resume: log and curves by steps", _curves, STEPS, "steps"),
        Row("train: records", _train, (32, 128, 512), "records", ("verb train",)),
        Row("train: row length", _train_long, (512, 2_048, 8_192), "tokens", time_bound=2.0,
            why="attention takes the square of a document's length"),
    ]  # fmt: skip


def _tokenize(ending: str, size: int, room: Path) -> Work:
    write = write_array if ending == ".json" else write_lines
    path = write(room / f"records{ending}", records(size))
    template, chosen = get_template("vicuna_v1.1"), tokenizer("bytes")
    return lambda: tokenize_files([path], template, chosen, max_length=2_048, workers=1, cache_dir=room / "cache")


def _cached(size: int, room: Path) -> Work:
    work = _tokenize(".jsonl", size, room)
    work()
    return work


def _lengths(size: int) -> list[int]:
    draw = random.Random(3)
    return [min(2_048, 20 + int(draw.expovariate(1 / 400))) for _ in range(size)]


def _pack(size: int, _: Path) -> Work:
    lengths = _lengths(size)
    return lambda: PackedEpochs(lengths, 2_048, 64, seed=1)


def _deal(size: int, _: Path) -> Work:
    lengths = _lengths(size)
    return lambda: deal([(item,) for item in range(size)], lengths, 4, 8)


def _conversations(size: int) -> TokenizedConversations:
    examples = Examples()
    for number in range(size):
        examples.ids.append(f"r{number}")
        examples.lengths.append(30)
        examples.tokens.extend(range(30))
        examples.is_supervised.extend([False] * 20 + [True] * 10)
    return concatenate([examples])


def _workload(size: int, _: Path) -> Work:
    dataset = ConversationDataset(_conversations(size), CPU)
    epochs = PackedEpochs(dataset.conversations.lengths, 2_048, 64, seed=1)
    return lambda: count_workload(dataset, epochs, 4)


def _curves(size: int, room: Path) -> Work:
    entries = ({"step": n, "loss": 2 + 1 / n, "tokens_per_second": 100.0 + n % 7} for n in range(1, size + 1))
    write_lines(room / "train_log.jsonl", entries)

    def work() -> None:
        TrainLog(room, size).draw()

    return work


def _train_with(path: Path, room: Path, *more: str) -> Work:
    model = save_llama(room / "model", tokenizer_folder("bytes"), max_position_embeddings=8_192)
    words = ["--model", str(model), "--data", str(path), "--output-dir", str(room / "run"), "--template", "chatml"]

    def work() -> None:
        assert train_main([*words, "--num-train-epochs", "1", "--no-bf16", "--device", "cpu", *more]) == 0

    return work


def _train(size: int, room: Path) -> Work:
    return _train_with(write_lines(room / "records.jsonl", records(size)), room)


def _train_long(size: int, room: Path) -> Work:
    path = write_lines(room / "records.jsonl", records(8, 1, size // 6))
    return _train_with(path, room, "--max-length", str(size))
