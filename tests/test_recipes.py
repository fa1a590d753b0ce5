"""The recipes start `vicuna.train` with flags that it takes, and with the figures that were published."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vicuna.options import parse
from vicuna.train.options import TrainOptions

SCRIPTS = Path(__file__).parent.parent / "scripts"
NAMES = ["train_7b.sh", "train_13b.sh", "train_lora_24gb.sh", "train_laptop.sh"]


def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run([SCRIPTS / name, *arguments], capture_output=True, text=True, env=environment)


def command(name: str, *more: str, **variables: str) -> list[str]:
    done = run(name, "the model", "data.jsonl", "out", *more, DRY_RUN="1", **variables)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stderr)


def options(words: list[str]) -> TrainOptions:
    at = words.index("vicuna.train")
    assert words[at - 1] == "-m"
    return parse(TrainOptions, words[at + 1 :], prog="train", description="")


@pytest.mark.parametrize("name", NAMES)
def test_flags_are_taken_and_those_of_the_user_come_last(name: str) -> None:
    found = options(command(name, "--seed", "7", "--learning-rate", "1e-6"))
    assert (found.model, found.data, found.output_dir) == (Path("the model"), (Path("data.jsonl"),), Path("out"))
    assert (found.seed, found.learning_rate) == (7, 1e-6)


@pytest.mark.parametrize("name", ["train_7b.sh", "train_13b.sh"])
def test_the_recipe_is_the_published_one(name: str) -> None:
    found = options(command(name))
    assert (found.learning_rate, found.num_train_epochs, found.max_length) == (2e-5, 3, 2048)
    assert (found.weight_decay, found.warmup_ratio) == (0, 0.03)
    assert (found.rows_per_step or 0) * (found.row_length or 0) == 128 * 1024
    unpacked = options(command(name, UNPACKED="1"))
    assert (unpacked.packing, unpacked.rows_per_step) == (False, 128)


def test_each_gpu_gets_a_process_and_a_plan_needs_none() -> None:
    words = command("train_7b.sh", GPUS="4")
    assert words[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "4"]
    words = command("train_13b.sh", NNODES="2", NODE_RANK="1", MASTER="10.0.0.1:29500")
    assert words[words.index("--rdzv-endpoint") + 1] == "10.0.0.1:29500"
    assert words[words.index("--node-rank") + 1] == "1"
    assert "torch.distributed.run" not in command("train_7b.sh", "--plan")
    assert "torch.distributed.run" not in command("train_lora_24gb.sh")


@pytest.mark.parametrize("name", NAMES)
def test_usage_and_what_is_missing(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage:")
    done = run(name, "only-a-model")
    assert done.returncode == 2
    assert "give MODEL, DATA and OUTPUT" in done.stderr


@pytest.mark.slow
def test_the_laptop_recipe_trains(tmp_path: Path) -> None:
    done = run("train_laptop.sh", "--output-dir", str(tmp_path / "out"), "--max-steps", "6", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    assert "training loss:" in done.stdout
