"""A folder without a good tokenizer is one line for the user, whatever the files' parsers raise."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from vicuna.conversation import load_tokenizer
from vicuna.errors import VicunaError


def test_a_tokenizer_is_loaded(bpe_tokenizer_directory: Path) -> None:
    assert load_tokenizer(bpe_tokenizer_directory).eos_token == "<|im_end|>"


def test_no_folder_and_no_tokenizer_in_it(tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match=r"gone: no such folder"):
        load_tokenizer(tmp_path / "gone")
    with pytest.raises(VicunaError, match=r"has no tokenizer .*copy its base model's files there"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", ""),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"added_tokens": 3, "model": {"type": "BPE"}}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", '{"tokenizer_class": 3}'),
    ],
)
def test_a_damaged_tokenizer(tmp_path: Path, bpe_tokenizer_directory: Path, name: str, content: str) -> None:
    folder = shutil.copytree(bpe_tokenizer_directory, tmp_path / "model")
    (folder / name).write_text(content)
    with pytest.raises(VicunaError, match=r"its tokenizer cannot be read|not JSON|not a JSON object") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


TEXTS = (
    "a  b",
    "def f():\n    return 1\n",
    "it's   fine",
    "hello world",
    "x\n\n\n  y",
    "1234 + 5",
    "中文 🙂  ok",
    "a \t b",
)


def test_a_sentencepiece_model_is_read_as_sentencepiece_reads_it(sentencepiece_tokenizer: Any) -> None:
    folder = Path(sentencepiece_tokenizer.name_or_path)
    witness = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TEXTS:
        assert sentencepiece_tokenizer(text, add_special_tokens=False)["input_ids"] == witness.encode(text), text
