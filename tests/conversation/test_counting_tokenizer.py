"""Counting without transformers gives the same counts; what was remembered is not trusted blindly."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vicuna.conversation import Message, TokenCounter, get_template, load_token_counter
from vicuna.conversation.counting_tokenizer import CountingTokenizer

TEMPLATE = get_template("vicuna_v1.1")
MESSAGES = [Message("user", "def f(x_1):\n\treturn 42  # é 中 </s>"), Message("assistant", "Sure: `f(2)`.\n\n" * 3)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=["sentencepiece", "bpe"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "bpe":
        return Path(request.getfixturevalue("bpe_tokenizer_directory"))
    return Path(request.getfixturevalue("sentencepiece_tokenizer").name_or_path)


def test_the_second_load_counts_the_same_without_transformers(folder: Path, home: Path) -> None:
    first = load_token_counter(TEMPLATE, folder)
    assert len(list(home.glob("tokenizers/*.json"))) == 1
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from vicuna.conversation import Message, get_template, load_token_counter\n"
        "counter = load_token_counter(get_template('vicuna_v1.1'), Path(sys.argv[1]))\n"
        f"print(counter({MESSAGES!r}))"
    )
    second = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert int(second.stdout) == first(MESSAGES)


def test_the_second_load_is_the_remembered_one(folder: Path) -> None:
    load_token_counter(TEMPLATE, folder)
    counter = load_token_counter(TEMPLATE, folder)
    assert isinstance(counter._encoder.tokenizer, CountingTokenizer)


def test_what_is_remembered_belongs_to_the_files(bpe_tokenizer_directory: Path, tmp_path: Path, home: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bpe_tokenizer_directory, copy)
    load_token_counter(TEMPLATE, copy)
    text = (copy / "tokenizer.json").read_text("utf-8")
    (copy / "tokenizer.json").write_text(text.replace('"<|im_end|>"', '"<|im_over|>"'), "utf-8")
    load_token_counter(TEMPLATE, copy)
    assert len(list(home.glob("tokenizers/*.json"))) == 2


def test_a_damaged_memory_is_made_anew(bpe_tokenizer_directory: Path, bpe_tokenizer: Any, home: Path) -> None:
    load_token_counter(TEMPLATE, bpe_tokenizer_directory)
    (path,) = home.glob("tokenizers/*.json")
    whole = path.read_text("utf-8")
    path.write_text(whole[: len(whole) // 2], "utf-8")
    counter = load_token_counter(TEMPLATE, bpe_tokenizer_directory)
    assert counter(MESSAGES) == TokenCounter(TEMPLATE, bpe_tokenizer)(MESSAGES)
    assert path.read_text("utf-8") == whole


def test_of_several_that_begin_together_one_loads_transformers(bpe_tokenizer_directory: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vicuna.conversation import get_template, load_token_counter\n"
        "load_token_counter(get_template('vicuna_v1.1'), Path(sys.argv[1]))\n"
        "print('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(bpe_tokenizer_directory)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(process.communicate()[0].strip() for process in running)
    assert said == ["False", "False", "True"]
